"""The adversary: attacks that need more than one client's view, around any Flower strategy."""

import copy
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from flwr.common import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.server import Grid
from flwr.serverapp.strategy import Result, Strategy
from numpy.typing import NDArray

from byzflower.attacks import AttackView, CollusiveAttack, Knowledge, TensorColumns, majority_size
from byzflower.randomness import torch_generator
from byzflower.server.diagnostics import SMALLEST_PICTURE, diagnose, embed
from byzflower.strategies.base import (
    UPLOAD_MODE,
    DenseMatrix,
    RobustStrategy,
    capped_weights,
    stack_dense,
)
from byzflower.strategies.rows import TooFewClients
from byzflower.uploads.base import CLIENT_ID, NUM_EXAMPLES
from byzflower.uploads.dense import DenseUpload
from byzflower.uploads.exchange import guarded
from byzflower.uploads.flower_compat import array_record, array_view, records_of
from byzflower.uploads.layout import Layout
from byzflower.uploads.reply import decode_reply, encode_upload


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
                into `info`. It takes some passes over all uploads.
            embed_rounds: rounds in which to lay the benign updates out in the plane (`embed`), into
                `embedding`.
            assumed: f/n, below 1/2, of which the skewed majority is named in rounds without Byzantine
                uploads.

        Raises:
            ValueError: not exactly one of `num_byzantine` and `byzantine`.
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
        self.diagnostics = diagnostics
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
        if self.attack is not None and self.attack.active(server_round):
            replies = self._rewrite(self.attack, server_round, replies)
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

    def _rewrite(self, attack: CollusiveAttack, server_round: int, replies: list[Message]) -> list[Message]:
        layout = self._require_layout()
        uploads = [self._decode(reply, layout) for reply in replies]
        arrived = [upload for upload in uploads if upload is not None]
        colluding = attack.knowledge is Knowledge.COLLUDING
        seen = self._uploads_of(arrived, layout, byzantine=colluding)
        byzantine = sorted({c for upload in arrived for c in upload.client_ids} & self.byzantine)
        if not byzantine or len(seen.client_ids) == 0:
            return replies
        view = AttackView(
            benign=seen.rows[:, : layout.d],
            num_byzantine=len(byzantine),
            num_clients=sum(map(len, arrived)),
            previous_aggregate=self._previous,
            round=server_round,
            generator=torch_generator(self.seed, "adversary", server_round),
            tensors=tuple(TensorColumns(*tensor) for tensor in layout.parameters),
            memory=self._memory,
            aggregate=None if colluding else self._servers_rule(seen, arrived, byzantine, layout.d),
        )
        crafted = dict(zip(byzantine, attack.craft(view), strict=True))
        return [
            reply if upload is None else self._replaced(reply, upload, crafted, layout)
            for reply, upload in zip(replies, uploads, strict=True)
        ]

    def _uploads_of(self, uploads: list[DenseUpload], layout: Layout, *, byzantine: bool) -> DenseMatrix:
        """Finite pseudo-gradients of the Byzantine or of the benign clients, in the order of their ids."""
        known = []
        for upload in uploads:
            visible = [i for i, c in enumerate(upload.client_ids) if (c in self.byzantine) == byzantine]
            if visible:
                known.append(upload if len(visible) == len(upload) else upload.take(visible))
        return stack_dense(known, self._global if self.upload == "weights" else None, layout)

    def _servers_rule(
        self, benign: DenseMatrix, uploads: list[DenseUpload], byzantine: list[int], d: int
    ) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """What the strategy would make of the benign uploads and crafted ones; None if it is not ours.

        The strategy's state stays as it is. The matrix is made when it is first needed: few attacks do.
        """
        strategy = self.strategy
        if not isinstance(strategy, RobustStrategy):
            return None
        order = {c: i for i, c in enumerate(sorted([*benign.client_ids, *byzantine]))}
        sizes = {
            c: s for upload in uploads for c, s in zip(upload.client_ids, upload.num_examples, strict=True)
        }
        weights = capped_weights(torch.tensor([sizes[c] for c in order]), strategy.max_client_weight)
        rows = torch.empty(0)

        def aggregate(crafted: torch.Tensor) -> torch.Tensor:
            nonlocal rows
            if len(rows) == 0:
                rows = torch.empty(len(order), d, dtype=benign.rows.dtype)
                rows[[order[c] for c in benign.client_ids]] = benign.rows[:, :d]
            rows[[order[c] for c in byzantine]] = crafted.to(rows)
            state = {name: value.copy() for name, value in strategy.state_dict().items()}
            try:
                result = strategy.apply(rows.to(strategy.device), weights.to(strategy.device))
                return result.gradient.cpu()
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
            self._uploads_of(arrived, layout, byzantine=which).rows[:, : layout.d] for which in (False, True)
        )
        n = len(benign) + len(byzantine)
        f = len(byzantine) or int(self.assumed * n)
        size = majority_size(len(benign), n, f) if n > 2 * f else 0
        if self.diagnostics and len(benign) > 0:
            aggregate = None
            if arrays is not None:
                aggregate = self._step_to(layout.row([array_view(a) for a in arrays.values()]), layout)
            self.info = diagnose(benign, byzantine, self._previous, aggregate, size)
        if server_round in self.embed_rounds and len(benign) >= SMALLEST_PICTURE:
            self.embedding = embed(benign, size)

    def _replaced(
        self, reply: Message, upload: DenseUpload, crafted: dict[int, torch.Tensor], layout: Layout
    ) -> Message:
        """A copy of the reply with the crafted rows of the Byzantine clients in it."""
        if crafted.keys().isdisjoint(upload.client_ids):
            return reply
        rows, d = upload.rows.copy(), layout.d
        for i, client in enumerate(upload.client_ids):
            if client in crafted:
                gradient = crafted[client].numpy()
                rows[i, :d] = gradient if self.upload == "gradient" else self._global[:d] - gradient
        replaced = DenseUpload(upload.client_ids, upload.num_examples, upload.metrics, rows)
        (name,) = records_of(reply.content, ArrayRecord)
        arrays = array_record(replaced.payload(layout, cohort=_is_cohort(reply)))
        return _with_content(reply, RecordDict({**reply.content, name: arrays}))

    def _singles(self, reply: Message) -> list[Message]:
        """Take a cohort's reply apart into one ordinary reply per client."""
        if not _is_cohort(reply):
            return [reply]
        layout = self._require_layout()
        upload, _ = decode_reply(reply, DenseUpload, layout)
        count = 0 if upload is None else len(upload)
        return [
            _with_content(reply, encode_upload(upload.take([i]), layout, cohort=False))
            for i in range(count)
            if upload is not None
        ]

    def _decode(self, reply: Message, layout: Layout) -> DenseUpload | None:
        """The well-formed uploads of a reply; clients without a logical id get their rank for one."""
        upload, _ = decode_reply(reply, DenseUpload, layout, self._weighted_by)
        if not isinstance(upload, DenseUpload):
            return None
        if not any(CLIENT_ID in metrics for metrics in records_of(reply.content, MetricRecord).values()):
            upload.client_ids = [self._ranks[reply.metadata.src_node_id]]
        return upload

    def _require_layout(self) -> Layout:
        if self._layout is None:
            raise RuntimeError("aggregate_train before configure_train: the global model is not known")
        return self._layout


def _is_cohort(reply: Message) -> bool:
    if not reply.has_content():
        return False
    return any(isinstance(m.get(CLIENT_ID), list) for m in records_of(reply.content, MetricRecord).values())


def _with_content(reply: Message, content: RecordDict) -> Message:
    twin = copy.copy(reply)
    twin.content = content
    return twin
