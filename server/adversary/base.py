"""The adversary: attacks that need more than one client's view, around any Flower strategy."""

import copy
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

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
from byzflower.numerics.rows import TooFewClients
from byzflower.server.adversary.arrived import Arrived
from byzflower.server.adversary.diagnostics import (
    SMALLEST_PICTURE,
    Similarity,
    diagnose,
    embed,
    poisoning,
    similarity_of,
)
from byzflower.strategies.base import RobustStrategy
from byzflower.strategies.options import kind_of
from byzflower.strategies.result import capped_weights
from byzflower.uploads.base import CLIENT_ID, NUM_EXAMPLES, Upload, among
from byzflower.uploads.codec import decode_reply, encode_upload
from byzflower.uploads.kind import UploadKind
from byzflower.uploads.layout import Layout
from byzflower.uploads.round import UPLOAD, Broadcast, Forged, UploadRound

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
        attack: Attack | None,
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
                passes over all uploads. Not of kinds of uploads that measure themselves.
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
        self.kind: UploadKind = (
            strategy.upload if isinstance(strategy, RobustStrategy) else kind_of(upload)  # type: ignore[arg-type]
        )
        self.server_lr = server_lr
        self.seed = seed
        self._weighted_by = getattr(strategy, "weighted_by_key", NUM_EXAMPLES)
        self.mask_attack = mask_attack
        if mask_attack is not None and self.kind.name != "topk":
            name = self.kind.name
            raise ValueError(f'mask_attack needs a strategy with upload="topk", got upload={name!r}')
        self.diagnostics = diagnostics
        self.similarity: Similarity | None = None
        self.embed_rounds = frozenset(embed_rounds)
        self.assumed = assumed
        self.info: dict[str, float] = {}
        self.embedding: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}
        self._ranks: dict[int, int] = {}
        self._sent: Broadcast | None = None
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
        config[UPLOAD] = self.kind.name
        messages = [*self.strategy.configure_train(server_round, arrays, config, grid)]
        if isinstance(self.strategy, RobustStrategy):
            sent = self.strategy.sent  # one global model
        else:
            sent = Broadcast.of({name: array_view(array) for name, array in arrays.items()})
        self._previous = None if self._sent is None else self._step_to(sent.row)
        self._sent = sent
        self._step_size = getattr(self.strategy, "server_lr", self.server_lr)
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
        if self.acts(server_round):
            replies = self._rewrite(server_round, replies)
        self.seconds = {"attack": time.perf_counter() - started}
        result: tuple[ArrayRecord | None, MetricRecord | None] = self.strategy.aggregate_train(
            server_round, replies
        )
        if (self.diagnostics or server_round in self.embed_rounds) and not self.kind.measures_itself:
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
        return {"global": self.sent.row, "step_size": np.array(self._step_size), **memory}

    def load_state_dict(
        self, names: list[str], arrays: list[NDArray[Any]], state: Mapping[str, NDArray[Any]]
    ) -> None:
        """Restore what `state_dict` gave, for a model with these named arrays."""
        layout = Broadcast.of(self.kind.broadcast(dict(zip(names, arrays, strict=True)))).layout
        self._sent = Broadcast(layout, state["global"])
        self._step_size = float(state["step_size"])
        self._memory = {
            name.removeprefix("memory."): torch.from_numpy(value)
            for name, value in state.items()
            if name.startswith("memory.")
        }

    # -- the attack --------------------------------------------------------------------------------

    def acts(self, server_round: int) -> bool:
        """Whether there is anything to rewrite in a round."""
        return any(_active(attack, server_round) for attack in (self.attack, self.mask_attack))

    def forge(self, server_round: int, arrived: Arrived) -> Forged | None:
        """What the Byzantine clients upload; None if the attack sees nothing to learn from."""
        attack, masks = _active(self.attack, server_round), _active(self.mask_attack, server_round)
        if isinstance(attack, CollusiveAttack):
            clients, crafted = arrived.byzantine, self._craft(attack, server_round, arrived)
        else:  # masks alone: of what the attackers themselves learned
            clients, crafted = arrived.attackers.client_ids, arrived.attackers.matrix()
        if len(crafted) == 0:
            return None
        generator = torch_generator(self.seed, "mask-attack", server_round)
        place = None if masks is None else partial(self._place, masks, generator)
        return self.kind.crafted(clients, crafted, lambda: arrived.benign, place)

    def _rewrite(self, server_round: int, replies: list[Message]) -> list[Message]:
        uploads = [self._decode(reply) for reply in replies]
        arrived = self._arrived([upload for upload in uploads if upload is not None])
        forged = self.forge(server_round, arrived) if arrived.byzantine else None
        if forged is None:
            return replies
        return [
            reply if upload is None else self._replaced(reply, upload, forged)
            for reply, upload in zip(replies, uploads, strict=True)
        ]

    def _craft(self, attack: CollusiveAttack, server_round: int, arrived: Arrived) -> torch.Tensor:
        """What the attackers upload, (f, d), or no rows if the attack sees nothing to learn from."""
        colluding = attack.knowledge is Knowledge.COLLUDING
        seen = arrived.attackers if colluding else arrived.benign
        if len(seen.client_ids) == 0:
            return torch.empty(0, self._model.d)
        view = AttackView(
            benign=seen.matrix(),
            num_byzantine=len(arrived.byzantine),
            num_clients=len(arrived.clients),
            previous_aggregate=self._previous,
            round=server_round,
            generator=torch_generator(self.seed, "adversary", server_round),
            tensors=self._tensors,
            memory=self._memory,
            aggregate=None if colluding else self._servers_rule(arrived),
        )
        return attack.craft(view)

    def _place(
        self,
        attack: MaskAttack,
        generator: torch.Generator,
        crafted: torch.Tensor,
        benign: torch.Tensor,
        masks: torch.Tensor,
        pack_size: int,
        budget: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Let the attack choose what is sent of crafted rows."""
        view = PackView(benign, masks, pack_size, budget, self._tensors, generator)
        return attack.place(crafted, view)

    def _servers_rule(self, arrived: Arrived) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """What the strategy would make of the benign uploads and crafted ones; None if it is not ours.

        The strategy's state stays as it is.
        """
        strategy, benign, d = self.strategy, arrived.benign, self._model.d
        if not (isinstance(strategy, RobustStrategy) and self.kind.reads_gradients):
            return None
        sizes, clients = arrived.sizes(), sorted([*benign.client_ids, *arrived.byzantine])
        weights = capped_weights(torch.tensor([sizes[c] for c in clients]), strategy.max_client_weight)
        mixture = self.kind.mixture(benign, arrived.byzantine)

        def aggregate(crafted: torch.Tensor) -> torch.Tensor:
            state = {name: value.copy() for name, value in strategy.state_dict().items()}
            rows = mixture(crafted)
            gradients = rows.to(strategy.device) if isinstance(rows, torch.Tensor) else rows
            try:
                return strategy.apply(gradients, weights.to(strategy.device)).gradient.cpu()
            except TooFewClients:
                return torch.full((d,), torch.nan)
            finally:
                strategy.load_state_dict(state)

        return aggregate

    # -- what is observed --------------------------------------------------------------------------

    def observed(self) -> dict[str, Any]:
        """What was measured of the last round, for its record."""
        measured: dict[str, Any] = {"diagnostics": self.info} if self.diagnostics else {}
        return {**measured, "embedding": self.embedding} if self.embedding else measured

    def save(self, folder: Path) -> None:
        """Write how similar the last sparse uploads were, if that was measured."""
        if self.similarity is not None:
            self.similarity.save(folder)

    def _observe(self, server_round: int, replies: list[Message], arrays: ArrayRecord | None) -> None:
        arrived = self._arrived([u for reply in replies if (u := self._decode(reply)) is not None])
        benign, byzantine = arrived.benign.matrix(), arrived.attackers.matrix()
        n = len(benign) + len(byzantine)
        f = len(byzantine) or int(self.assumed * n)
        size = majority_size(len(benign), n, f) if n > 2 * f else 0
        if self.diagnostics and len(benign) > 0:
            aggregate = None
            if arrays is not None:
                new = self.sent.layout.joined([array_view(array) for array in arrays.values()])
                aggregate = self._step_to(new)
            self.info = diagnose(benign, byzantine, self._previous, aggregate, size)
            if arrived.benign.masks is not None:
                self.info.update(self._diagnose_packs(arrived.everybody, aggregate))
        if server_round in self.embed_rounds and len(benign) >= SMALLEST_PICTURE:
            self.embedding = embed(benign, size)

    def _diagnose_packs(self, everybody: UploadRound, aggregate: torch.Tensor | None) -> dict[str, float]:
        rows: PackedRows = everybody.gradients(torch.device("cpu"))
        self.similarity = similarity_of(rows, everybody.client_ids)
        if aggregate is None:
            return {}
        who = among(everybody.client_ids, self.byzantine)
        return poisoning(rows, torch.from_numpy(everybody.num_examples), who, aggregate)

    # -- messages ----------------------------------------------------------------------------------

    @property
    def sent(self) -> Broadcast:
        """What this round's clients were sent.

        Raises:
            RuntimeError: before the first round.
        """
        if self._sent is None:
            raise RuntimeError("aggregate_train before configure_train: the global model is not known")
        return self._sent

    @property
    def _model(self) -> Layout:
        return self.kind.trained(self.sent.layout)

    @property
    def _tensors(self) -> tuple[TensorColumns, ...]:
        return tuple(TensorColumns(*tensor) for tensor in self._model.parameters)

    def _step_to(self, row: NDArray[Any]) -> torch.Tensor:
        """The aggregate that led from the last broadcast to this one, as two broadcasts reveal it."""
        return torch.from_numpy(self.kind.applied(self.sent, row, self._step_size))

    def _arrived(self, uploads: list[Upload]) -> Arrived:
        return Arrived(uploads, self.byzantine, lambda some: self.kind.rows(some, self.sent, self._step_size))

    def _replaced(self, reply: Message, upload: Upload, forged: Forged) -> Message:
        """A copy of the reply with the forged uploads of the Byzantine clients in it."""
        if set(forged.clients).isdisjoint(upload.client_ids):
            return reply
        replaced = self.kind.forge(upload, forged, self.sent)
        (name,) = records_of(reply.content, ArrayRecord)
        arrays = array_record(replaced.payload(self.sent.layout, cohort=is_cohort(reply)))
        return with_content(reply, RecordDict({**reply.content, name: arrays}))

    def _singles(self, reply: Message) -> list[Message]:
        """Take a cohort's reply apart into one ordinary reply per client."""
        if not is_cohort(reply):
            return [reply]
        layout = self.sent.layout
        upload, _ = decode_reply(reply, self.kind, layout)
        if upload is None:
            return []
        return [
            with_content(reply, encode_upload(upload.take([i]), layout, cohort=False))
            for i in range(len(upload))
        ]

    def _decode(self, reply: Message) -> Upload | None:
        """The well-formed uploads of a reply; clients without a logical id get their rank for one."""
        upload, _ = decode_reply(reply, self.kind, self.sent.layout, self._weighted_by)
        if upload is None:
            return None
        if not any(CLIENT_ID in metrics for metrics in records_of(reply.content, MetricRecord).values()):
            upload.client_ids = [self._ranks[reply.metadata.src_node_id]]
        return upload


def _active(attack: A | None, server_round: int) -> A | None:
    return attack if attack is not None and attack.active(server_round) else None


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
