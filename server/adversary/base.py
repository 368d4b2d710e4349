"""The adversary: attacks that need more than one client's view, around any Flower strategy."""

import copy
import dataclasses
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from flwr.common import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.server import Grid
from flwr.serverapp.strategy import Result, Strategy
from numpy.typing import NDArray

from byzflower.attacks import (
    Attack,
    AttackView,
    CollusiveAttack,
    Knowledge,
    MaskAttack,
    PackView,
    TensorColumns,
    majority_size,
)
from byzflower.flower.compat import array_record, array_view, records_of
from byzflower.flower.guarded import guarded
from byzflower.numerics.packed_rows import PackedRows
from byzflower.numerics.randomness import torch_generator
from byzflower.numerics.rows import Rows, TooFewClients
from byzflower.server.adversary.diagnostics import (
    SMALLEST_PICTURE,
    Similarity,
    diagnose,
    embed,
    poisoning,
    similarity_of,
)
from byzflower.strategies.base import UPLOAD_MODE, RobustStrategy
from byzflower.strategies.result import Gradients, capped_weights
from byzflower.strategies.stack import SparseRows, Stacked, stack
from byzflower.uploads.base import CLIENT_ID, NUM_EXAMPLES, Upload, UploadFormat, among
from byzflower.uploads.codec import decode_reply, encode_upload
from byzflower.uploads.dense import DenseUpload
from byzflower.uploads.layout import Layout
from byzflower.uploads.topk import TopKUpload

A = TypeVar("A", bound=Attack)


class Adversary(Strategy):
    """Rewrite the Byzantine clients' replies just before a strategy aggregates them.

    Only the server sees all uploads, so this is where OMNISCIENT and COLLUDING attacks are simulated.
    The wrapped strategy may be ours, Flower's own or a user's; it cannot tell the rewritten replies
    from real ones. Cohorts' replies are taken apart for strategies that know nothing of them.
    """

    def __init__(
        self,
        strategy: Strategy,
        attack: CollusiveAttack | None,
        num_byzantine: int | None = None,
        *,
        byzantine: Collection[int] | None = None,
        upload: str = "weights",
        server_lr: float = 1.0,
        seed: int = 0,
        diagnostics: bool = False,
        embed_rounds: Collection[int] = (),
        assumed: float = 0.0,
        mask_attack: MaskAttack | None = None,
    ) -> None:
        """Wrap a strategy.

        Args:
            strategy: any Flower Message-API strategy.
            attack: what the Byzantine clients upload, and when; None if they do it by themselves and
                are only to be observed.
            num_byzantine: how many are Byzantine: the first logical ids. Clients that never name a
                ``client-id`` are numbered by ascending node id at first sight.
            byzantine: which logical ids are Byzantine, instead of a number.
            upload: "weights" or "gradient", what clients send (a `RobustStrategy` knows by itself).
            server_lr: the server's step size, to infer the last aggregate (likewise).
            seed: of the attack's randomness.
            diagnostics: measure how the attack lies among the benign updates (`diagnose`), every round,
                into `info`, and of sparse uploads how similar they are, into `similarity`. It takes some
                passes over all uploads.
            embed_rounds: rounds in which to lay the benign updates out in the plane (`embed`), into
                `embedding`.
            assumed: f/n, below 1/2, of which the skewed majority is named in rounds without Byzantine
                uploads.
            mask_attack: which packs the Byzantine clients send, where uploads are sparse; None for those
                that matter most to what they upload. While it acts they should send all packs.

        Raises:
            ValueError: not exactly one of `num_byzantine` and `byzantine`, or a `mask_attack` around a
                strategy whose uploads are dense.
        """
        if (num_byzantine is None) == (byzantine is None):
            raise ValueError("give either num_byzantine or byzantine (a collection of client ids)")
        self.strategy = strategy
        self.attack = attack
        self.byzantine = frozenset(range(num_byzantine or 0) if byzantine is None else byzantine)
        self.upload = strategy.upload if isinstance(strategy, RobustStrategy) else upload
        self.server_lr = server_lr
        self.seed = seed
        self._weighted_by = getattr(strategy, "weighted_by_key", NUM_EXAMPLES)
        self.mask_attack = mask_attack
        self._format: UploadFormat = (
            strategy.upload_kind if isinstance(strategy, RobustStrategy) else DenseUpload
        )
        if mask_attack is not None and self.upload != "topk":
            raise ValueError(f'mask_attack needs a strategy with upload="topk", got upload={self.upload!r}')
        self.diagnostics = diagnostics
        self.similarity: Similarity | None = None
        self.embed_rounds = frozenset(embed_rounds)
        self.assumed = assumed
        self.info: dict[str, float] = {}
        self.embedding: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}
        self._ranks: dict[int, int] = {}
        self._layout: Layout | None = None
        self._global: NDArray[Any] = np.empty(0)
        self._previous: torch.Tensor | None = None
        self._step_size = 1.0
        self._memory: dict[str, torch.Tensor] = {}

    def summary(self) -> None:
        """Log the wrapped strategy's settings."""
        self.strategy.summary()

    def start(self, grid: Grid, *args: Any, **kwargs: Any) -> Result:
        """Run all rounds, as `RobustStrategy.start` does."""
        return super().start(guarded(grid), *args, **kwargs)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Overhear the broadcast."""
        views = {name: array_view(array) for name, array in arrays.items()}
        layout = Layout.of(views)
        row = layout.row(list(views.values()))
        self._previous = None if self._layout is None else self._step_to(row, layout)
        self._layout, self._global = layout, row
        self._step_size = (
            self.strategy.server_lr if isinstance(self.strategy, RobustStrategy) else self.server_lr
        )
        config[UPLOAD_MODE] = self.upload
        messages: Iterable[Message] = self.strategy.configure_train(server_round, arrays, config, grid)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Rewrite the Byzantine replies, then let the wrapped strategy aggregate."""
        started = time.perf_counter()
        self.info, self.embedding = {}, {}
        replies = list(replies)
        if not isinstance(self.strategy, RobustStrategy):
            replies = [single for reply in replies for single in self._singles(reply)]
        for node in sorted(reply.metadata.src_node_id for reply in replies):
            self._ranks.setdefault(node, len(self._ranks))
        attack, masks = _active(self.attack, server_round), _active(self.mask_attack, server_round)
        if attack is not None or masks is not None:
            replies = self._rewrite(attack, masks, server_round, replies)
        self.seconds = {"attack": time.perf_counter() - started}
        result: tuple[ArrayRecord | None, MetricRecord | None] = self.strategy.aggregate_train(
            server_round, replies
        )
        if self.diagnostics or server_round in self.embed_rounds:
            started = time.perf_counter()
            self._observe(server_round, replies, result[0])
            self.seconds["diagnostics"] = time.perf_counter() - started
        return result

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Delegate."""
        messages: Iterable[Message] = self.strategy.configure_evaluate(server_round, arrays, config, grid)
        return messages

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Delegate."""
        metrics: MetricRecord | None = self.strategy.aggregate_evaluate(server_round, replies)
        return metrics

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """What must be saved with the model to go on later: the last broadcast, the attack's memory."""
        memory = {f"memory.{name}": value.numpy() for name, value in self._memory.items()}
        return {"global": self._global, "step_size": np.array(self._step_size), **memory}

    def load_state_dict(
        self, names: list[str], arrays: list[NDArray[Any]], state: Mapping[str, NDArray[Any]]
    ) -> None:
        """Restore what `state_dict` gave, for a model with these named arrays."""
        self._layout = Layout.of(dict(zip(names, arrays, strict=True)))
        self._global = state["global"]
        self._step_size = float(state["step_size"])
        self._memory = {
            name.removeprefix("memory."): torch.from_numpy(value)
            for name, value in state.items()
            if name.startswith("memory.")
        }

    # -- the attack --------------------------------------------------------------------------------

    def _rewrite(
        self,
        attack: CollusiveAttack | None,
        mask_attack: MaskAttack | None,
        server_round: int,
        replies: list[Message],
    ) -> list[Message]:
        layout = self._require_layout()
        uploads = [self._decode(reply, layout) for reply in replies]
        arrived = [upload for upload in uploads if upload is not None]
        byzantine = sorted({c for upload in arrived for c in upload.client_ids} & self.byzantine)
        benign = self._uploads_of(arrived, layout, byzantine=False)
        if attack is None:
            own = self._uploads_of(arrived, layout, byzantine=True)
            byzantine, crafted = own.client_ids, _matrix(own)
        elif byzantine:
            crafted = self._craft(attack, server_round, arrived, benign, byzantine)
        if not byzantine or len(crafted) == 0:
            return replies
        masks = torch.empty(0)
        if isinstance(benign, SparseRows):
            generator = torch_generator(self.seed, "mask-attack", server_round)
            crafted, masks = self._place(mask_attack, crafted, benign, generator)
        forged = _Forged(byzantine, crafted, masks)
        return [
            reply if upload is None else self._replaced(reply, upload, forged, layout)
            for reply, upload in zip(replies, uploads, strict=True)
        ]

    def _craft(
        self,
        attack: CollusiveAttack,
        server_round: int,
        arrived: list[Upload],
        benign: Stacked,
        byzantine: list[int],
    ) -> torch.Tensor:
        """What the attackers upload, (f, d), or no rows if the attack sees nothing to learn from."""
        layout = self._require_layout()
        colluding = attack.knowledge is Knowledge.COLLUDING
        seen = self._uploads_of(arrived, layout, byzantine=True) if colluding else benign
        if len(seen.client_ids) == 0:
            return torch.empty(0, layout.d)
        view = AttackView(
            benign=_matrix(seen),
            num_byzantine=len(byzantine),
            num_clients=sum(map(len, arrived)),
            previous_aggregate=self._previous,
            round=server_round,
            generator=torch_generator(self.seed, "adversary", server_round),
            tensors=tuple(TensorColumns(*tensor) for tensor in layout.parameters),
            memory=self._memory,
            aggregate=None if colluding else self._servers_rule(seen, arrived, byzantine, layout.d),
        )
        return attack.craft(view)

    def _place(
        self,
        mask_attack: MaskAttack | None,
        crafted: torch.Tensor,
        benign: SparseRows,
        generator: torch.Generator,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Choose the packs of crafted rows: as many as benign clients send, the most important ones."""
        packs = benign.upload.packs
        budget = int(np.median(benign.masks.sum(axis=1))) if len(benign.masks) else packs.count
        if mask_attack is None or len(benign.masks) == 0:
            rows = [packs.largest(packs.importance(row), budget) for row in crafted.numpy()]
            return crafted, torch.from_numpy(np.stack(rows))
        view = PackView(
            benign=_matrix(benign),
            masks=torch.from_numpy(benign.masks),
            pack_size=packs.size,
            budget=budget,
            tensors=tuple(TensorColumns(*tensor) for tensor in self._require_layout().parameters),
            generator=generator,
        )
        return mask_attack.place(crafted, view)

    def _uploads_of(self, uploads: list[Upload], layout: Layout, *, byzantine: bool) -> Stacked:
        """Finite pseudo-gradients of the Byzantine or of the benign clients, in the order of their ids."""
        known = []
        for upload in uploads:
            visible = [i for i, c in enumerate(upload.client_ids) if (c in self.byzantine) == byzantine]
            if len(visible) == len(upload):
                known.append(upload)
            elif visible:
                known.append(upload.take(visible))
        return stack(known, None if self.upload == "gradient" else self._global, layout)

    def _servers_rule(
        self, benign: Stacked, uploads: list[Upload], byzantine: list[int], d: int
    ) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """What the strategy would make of the benign uploads and crafted ones; None if it is not ours.

        The strategy's state stays as it is. The matrix is made when it is first needed: few attacks do.
        """
        strategy = self.strategy
        if not isinstance(strategy, RobustStrategy):
            return None
        order = {c: i for i, c in enumerate(sorted([*benign.client_ids, *byzantine]))}
        theirs = [order[c] for c in byzantine]
        sizes = {
            c: s for upload in uploads for c, s in zip(upload.client_ids, upload.num_examples, strict=True)
        }
        weights = capped_weights(torch.tensor([sizes[c] for c in order]), strategy.max_client_weight)
        rows = torch.empty(0)

        def gradients(crafted: torch.Tensor) -> Gradients:
            nonlocal rows
            if len(rows) == 0:
                known = _matrix(benign)
                rows = torch.empty(len(order), d, dtype=known.dtype)
                rows[[order[c] for c in benign.client_ids]] = known
            rows[theirs] = crafted.to(rows)
            if not isinstance(benign, SparseRows):
                return rows.to(strategy.device)
            masks = torch.empty(len(order), benign.upload.packs.count, dtype=torch.bool)
            masks[[order[c] for c in benign.client_ids]] = torch.from_numpy(benign.masks)
            _, masks[theirs] = self._place(None, crafted.to(rows), benign, torch.Generator())
            return PackedRows.of_matrix(rows, masks, benign.upload.packs.size)

        def aggregate(crafted: torch.Tensor) -> torch.Tensor:
            state = {name: value.copy() for name, value in strategy.state_dict().items()}
            try:
                return strategy.apply(gradients(crafted), weights.to(strategy.device)).gradient.cpu()
            except TooFewClients:
                return torch.full((d,), torch.nan)
            finally:
                strategy.load_state_dict(state)

        return aggregate

    def _step_to(self, row: NDArray[Any], layout: Layout) -> torch.Tensor:
        """The aggregate that led from the last broadcast to this one, as two broadcasts reveal it."""
        return torch.from_numpy((self._global - row)[: layout.d] / self._step_size)

    def _observe(self, server_round: int, replies: list[Message], arrays: ArrayRecord | None) -> None:
        layout = self._require_layout()
        arrived = [upload for reply in replies if (upload := self._decode(reply, layout)) is not None]
        benign, byzantine = (
            _matrix(self._uploads_of(arrived, layout, byzantine=which)) for which in (False, True)
        )
        n = len(benign) + len(byzantine)
        f = len(byzantine) or int(self.assumed * n)
        size = majority_size(len(benign), n, f) if n > 2 * f else 0
        if self.diagnostics and len(benign) > 0:
            aggregate = None
            if arrays is not None:
                aggregate = self._step_to(layout.row([array_view(a) for a in arrays.values()]), layout)
            self.info = diagnose(benign, byzantine, self._previous, aggregate, size)
            everybody = stack(arrived, self._global, layout)
            if isinstance(everybody, SparseRows):
                self.info.update(self._diagnose_packs(everybody, aggregate))
        if server_round in self.embed_rounds and len(benign) >= SMALLEST_PICTURE:
            self.embedding = embed(benign, size)

    def _diagnose_packs(self, uploads: SparseRows, aggregate: torch.Tensor | None) -> dict[str, float]:
        rows = uploads.gradients(torch.device("cpu"))
        self.similarity = similarity_of(rows, uploads.client_ids)
        if aggregate is None:
            return {}
        who = among(uploads.client_ids, self.byzantine)
        return poisoning(rows, torch.from_numpy(uploads.num_examples), who, aggregate)

    def _replaced(self, reply: Message, upload: Upload, forged: "_Forged", layout: Layout) -> Message:
        """A copy of the reply with the forged uploads of the Byzantine clients in it."""
        if set(forged.clients).isdisjoint(upload.client_ids):
            return reply
        if isinstance(upload, TopKUpload):
            replaced = self._forge_sparse(upload, forged)
        else:
            replaced = self._forge_dense(upload, forged, layout.d)
        (name,) = records_of(reply.content, ArrayRecord)
        arrays = array_record(replaced.payload(layout, cohort=is_cohort(reply)))
        return with_content(reply, RecordDict({**reply.content, name: arrays}))

    def _forge_dense(self, upload: Upload, forged: "_Forged", d: int) -> Upload:
        if not isinstance(upload, DenseUpload):
            raise TypeError(f"the adversary cannot rewrite {upload.kind} uploads")
        rows = upload.rows.copy()
        for i, position in forged.positions(upload.client_ids):
            gradient = forged.rows[position].numpy()
            rows[i, :d] = gradient if self.upload == "gradient" else self._global[:d] - gradient
        return DenseUpload(upload.client_ids, upload.num_examples, upload.metrics, rows)

    def _forge_sparse(self, upload: TopKUpload, forged: "_Forged") -> Upload:
        masks, values = upload.masks.copy(), [*upload.values]
        for i, position in forged.positions(upload.client_ids):
            masks[i], gradient = forged.masks[position].numpy(), forged.rows[position].numpy()
            columns = upload.packs.columns(masks[i])
            own = self._global[: upload.packs.d][columns] - gradient[columns]
            with np.errstate(over="ignore"):
                values[i] = own.astype(values[i].dtype)
        return dataclasses.replace(upload, masks=masks, values=values)

    def _singles(self, reply: Message) -> list[Message]:
        """Take a cohort's reply apart into one ordinary reply per client."""
        if not is_cohort(reply):
            return [reply]
        layout = self._require_layout()
        upload, _ = decode_reply(reply, DenseUpload, layout)
        count = 0 if upload is None else len(upload)
        return [
            with_content(reply, encode_upload(upload.take([i]), layout, cohort=False))
            for i in range(count)
            if upload is not None
        ]

    def _decode(self, reply: Message, layout: Layout) -> Upload | None:
        """The well-formed uploads of a reply; clients without a logical id get their rank for one."""
        upload, _ = decode_reply(reply, self._format, layout, self._weighted_by)
        if upload is None:
            return None
        if not any(CLIENT_ID in metrics for metrics in records_of(reply.content, MetricRecord).values()):
            upload.client_ids = [self._ranks[reply.metadata.src_node_id]]
        return upload

    def _require_layout(self) -> Layout:
        if self._layout is None:
            raise RuntimeError("aggregate_train before configure_train: the global model is not known")
        return self._layout


class _Forged(NamedTuple):
    """Forged uploads of the Byzantine clients: (f, d) rows, and (f, P) masks, or none if they are dense."""

    clients: list[int]
    rows: torch.Tensor
    masks: torch.Tensor

    def positions(self, clients: list[int]) -> list[tuple[int, int]]:
        """Positions in `clients` of those with a forged upload, and of that upload."""
        mine = {client: position for position, client in enumerate(self.clients)}
        return [(i, mine[client]) for i, client in enumerate(clients) if client in mine]


def _active(attack: A | None, server_round: int) -> A | None:
    return attack if attack is not None and attack.active(server_round) else None


def _matrix(stacked: Stacked) -> torch.Tensor:
    """All rows, (n, d), 0 where a client sent nothing."""
    if not stacked.client_ids:
        return torch.empty(0, stacked.d)
    return Rows.of(stacked.gradients(torch.device("cpu"))).matrix()


def is_cohort(reply: Message) -> bool:
    """Whether a reply is a cohort's."""
    if not reply.has_content():
        return False
    return any(isinstance(m.get(CLIENT_ID), list) for m in records_of(reply.content, MetricRecord).values())


def with_content(reply: Message, content: RecordDict) -> Message:
    """A copy of a reply with another content."""
    twin = copy.copy(reply)
    twin.content = content
    return twin
