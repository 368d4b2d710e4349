"""The adversary: attacks that need more than one client's view, around any Flower strategy."""

import copy
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from flwr.common import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.server import Grid
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from byzflower.attacks import AttackView, CollusiveAttack, Knowledge
from byzflower.randomness import torch_generator
from byzflower.strategies.base import UPLOAD_MODE, RobustStrategy, stack_dense
from byzflower.uploads.base import CLIENT_ID, NUM_EXAMPLES
from byzflower.uploads.dense import DenseUpload
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
        attack: CollusiveAttack,
        num_byzantine: int | None = None,
        *,
        byzantine: Collection[int] | None = None,
        upload: str = "weights",
        server_lr: float = 1.0,
        seed: int = 0,
    ) -> None:
        """Wrap a strategy.

        Args:
            strategy: any Flower Message-API strategy.
            attack: what the Byzantine clients upload, and when.
            num_byzantine: how many are Byzantine: the first logical ids. Clients that never name a
                ``client-id`` are numbered by ascending node id at first sight.
            byzantine: which logical ids are Byzantine, instead of a number.
            upload: "weights" or "gradient", what clients send (a `RobustStrategy` knows by itself).
            server_lr: the server's step size, to infer the last aggregate (likewise).
            seed: of the attack's randomness.

        Raises:
            ValueError: not exactly one of `num_byzantine` and `byzantine`.
        """
        if (num_byzantine is None) == (byzantine is None):
            raise ValueError("give either num_byzantine or byzantine (a collection of client ids)")
        self.strategy = strategy
        self.attack = attack
        self.byzantine = frozenset(range(num_byzantine or 0) if byzantine is None else byzantine)
        self.upload = strategy.upload if isinstance(strategy, RobustStrategy) else upload
        self.server_lr = strategy.server_lr if isinstance(strategy, RobustStrategy) else server_lr
        self.seed = seed
        self._weighted_by = getattr(strategy, "weighted_by_key", NUM_EXAMPLES)
        self.info: dict[str, float] = {}
        self._ranks: dict[int, int] = {}
        self._layout: Layout | None = None
        self._global: NDArray[Any] = np.empty(0)
        self._previous: NDArray[Any] | None = None

    def summary(self) -> None:
        """Log the wrapped strategy's settings."""
        self.strategy.summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Overhear the broadcast."""
        views = {name: array_view(array) for name, array in arrays.items()}
        layout = Layout.of(views)
        self._previous = self._global if self._layout is not None else None
        self._layout, self._global = layout, layout.row(list(views.values()))
        config[UPLOAD_MODE] = self.upload
        messages: Iterable[Message] = self.strategy.configure_train(server_round, arrays, config, grid)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Rewrite the Byzantine replies, then let the wrapped strategy aggregate."""
        started = time.perf_counter()
        self.info = {}
        replies = list(replies)
        if not isinstance(self.strategy, RobustStrategy):
            replies = [single for reply in replies for single in self._singles(reply)]
        for node in sorted(reply.metadata.src_node_id for reply in replies):
            self._ranks.setdefault(node, len(self._ranks))
        if self.attack.active(server_round):
            replies = self._rewrite(server_round, replies)
        self.info["attack-seconds"] = time.perf_counter() - started
        result: tuple[ArrayRecord | None, MetricRecord | None] = self.strategy.aggregate_train(
            server_round, replies
        )
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
        """What must be saved with the model to go on later: the last broadcast."""
        return {"global": self._global}

    def load_state_dict(
        self, names: list[str], arrays: list[NDArray[Any]], state: Mapping[str, NDArray[Any]]
    ) -> None:
        """Restore what `state_dict` gave, for a model with these named arrays."""
        self._layout = Layout.of(dict(zip(names, arrays, strict=True)))
        self._global = state["global"]

    # -- the attack --------------------------------------------------------------------------------

    def _rewrite(self, server_round: int, replies: list[Message]) -> list[Message]:
        layout = self._require_layout()
        uploads = [self._decode(reply, layout) for reply in replies]
        arrived = [upload for upload in uploads if upload is not None]
        seen = self._known_updates(arrived, layout)
        byzantine = sorted({c for upload in arrived for c in upload.client_ids} & self.byzantine)
        if not byzantine or len(seen) == 0:
            return replies
        view = AttackView(
            benign=seen,
            num_byzantine=len(byzantine),
            num_clients=sum(map(len, arrived)),
            previous_aggregate=self._previous_aggregate(layout),
            round=server_round,
            generator=torch_generator(self.seed, "adversary", server_round),
        )
        crafted = dict(zip(byzantine, self.attack.craft(view), strict=True))
        return [
            reply if upload is None else self._replaced(reply, upload, crafted, layout)
            for reply, upload in zip(replies, uploads, strict=True)
        ]

    def _known_updates(self, uploads: list[DenseUpload], layout: Layout) -> torch.Tensor:
        """Pseudo-gradients (m, d) that the attack may see, in the order of client ids."""
        colluding = self.attack.knowledge is Knowledge.COLLUDING
        known = []
        for upload in uploads:
            visible = [i for i, c in enumerate(upload.client_ids) if (c in self.byzantine) == colluding]
            if visible:
                known.append(upload if len(visible) == len(upload) else upload.take(visible))
        matrix = stack_dense(known, self._global if self.upload == "weights" else None, layout)
        return matrix.rows[:, : layout.d]

    def _previous_aggregate(self, layout: Layout) -> torch.Tensor | None:
        if self._previous is None:
            return None
        return torch.from_numpy((self._previous - self._global)[: layout.d] / self.server_lr)

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
