"""RobustStrategy: everything of a Flower strategy that is not the aggregation rule itself."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from logging import INFO, WARNING
from typing import Any, ClassVar, Literal, TypedDict, Unpack

import numpy as np
import torch
from flwr.common import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict, log
from flwr.server import Grid
from flwr.serverapp import strategy as flwr_strategy
from numpy.typing import NDArray

from byzflower import memory
from byzflower.randomness import numpy_generator, seed_for
from byzflower.strategies.columns import column_median
from byzflower.strategies.leeway import hold_back
from byzflower.strategies.nodes import wait_for_nodes
from byzflower.strategies.packs import PackedRows, over_contributors
from byzflower.strategies.pre_aggregation import PreAggregation
from byzflower.strategies.record import RoundRecord
from byzflower.strategies.result import (
    AggregationResult,
    Gradients,
    NumByzantine,
    capped_weights,
    count_byzantine,
)
from byzflower.strategies.result import check as _check
from byzflower.strategies.rows import Rows, TooFewClients
from byzflower.strategies.stack import is_held, misfits, stack
from byzflower.threads import one_thread, usable_cores
from byzflower.uploads.base import (
    CLIENT_IDS,
    Ignored,
    Rejection,
    Upload,
    UploadFormat,
    can_be_averaged,
)
from byzflower.uploads.dense import DenseUpload
from byzflower.uploads.exchange import guarded
from byzflower.uploads.flower_compat import array_record, array_view, wire_bytes
from byzflower.uploads.layout import Layout
from byzflower.uploads.reply import collect_evaluations, collect_uploads, most_have
from byzflower.uploads.roster import ClaimRoster, CohortRoster, NodeRoster, Roster
from byzflower.uploads.topk import DEFAULT_PACK_SIZE, PACK_SIZE, Packs, TopKFormat

UploadMode = Literal["weights", "gradient", "topk"]
Densify = Literal["zero", "contributors"]
Identity = Literal["claimed", "node"]
UPLOAD_MODE = "upload"
# What rules have in work of each client, on each core: some temporaries of a block of columns.
_WORK_BYTES, _WORK_COLUMNS = 32, 1 << 15
# Rows of the model's size: the global one, the aggregate, the step, a rule's centres and sums.
_MODELS = 8
# Batches of subsets, of items, of packs.
_TABLES_BYTES = 1 << 26
# Of one client's pack: two booleans of masks and a rank.
_PACK_BYTES = 10
_LARGE_ROUND = 1 << 28  # bytes of uploads that arrive in so many pieces that tidying up after them pays


class TooManySkippedRounds(RuntimeError):
    """No aggregate could be made for `max_skipped_rounds` rounds in a row."""


class RoundTooLarge(MemoryError):
    """A round's uploads would need more memory than `max_round_bytes`."""


class StrategyOptions(TypedDict, total=False):
    """Options that every strategy takes; see `RobustStrategy`."""

    pre: Sequence[PreAggregation]
    server_lr: float
    upload: UploadMode
    pack_size: int
    densify: Densify
    max_client_weight: float | None
    max_skipped_rounds: int
    max_round_bytes: int
    num_clients: int | None
    identity: Identity
    strata: Sequence[Collection[int]]
    seed: int
    device: str
    fraction_train: float
    fraction_evaluate: float
    min_train_nodes: int
    min_evaluate_nodes: int
    min_available_nodes: int
    weighted_by_key: str
    arrayrecord_key: str
    configrecord_key: str
    train_metrics_aggr_fn: Any
    evaluate_metrics_aggr_fn: Any


class RobustStrategy(flwr_strategy.FedAvg, ABC):
    """Base of all strategies: decode and check replies, build the matrix, apply the rule, step, record.

    A subclass implements `aggregate` and names its own parameters. Replies are untrusted: one that is
    malformed in any way is quarantined, with its reason in `last_round`, and the round goes on with
    the others. If too few are left for the rule, the global model stays; f is not lowered for it, since
    who crashed need not be who attacks. Leave room for that: Byzantine clients may send garbage, too.
    """

    upload_kind: UploadFormat = DenseUpload
    coordinate_wise: ClassVar[bool] = False  # treats columns one by one, and rows alike

    def __init__(self, **options: Unpack[StrategyOptions]) -> None:
        """Make the strategy.

        Args:
            options: everything that `flwr.serverapp.strategy.FedAvg` takes, and

                * ``pre`` (default none): pre-aggregations, applied in order before the rule. What
                  the rule selects and weights is then told of the clients as
                  `AggregationResult.for_clients` says.
                * ``server_lr`` (default 1): step size v in w <- w - v * aggregate, positive.
                * ``upload`` ("weights", "gradient" or "topk"): what clients send. Models are turned into
                  pseudo-gradients g_i = w - w_i, of sparse models (`TopKClient`) the packs that were
                  sent; gradients are used as they are.
                * ``pack_size`` (default 64): scalars in a pack of a sparse model; clients are told.
                * ``densify`` ("zero" or "contributors"): what a rule sees of packs that a client did not
                  send: an update of 0, or not that client. The second is for coordinate-wise rules and
                  means.
                * ``max_client_weight`` (default none): cap, in (0, 1], on the share that one client's
                  self-reported num-examples gives it.
                * ``max_skipped_rounds`` (default 3): rounds without an aggregate, in a row, before
                  `TooManySkippedRounds`.
                * ``max_round_bytes`` (default 0, no limit): memory that one round may need here; see
                  `round_bytes`. A round that needs more is refused before it begins.
                * ``num_clients`` (default none): simulate that many logical clients, spread evenly
                  over the nodes as cohorts. Without it every node is one client.
                * ``identity`` ("claimed" or "node"; not with ``num_clients``): what a client is known by: the
                  ``client-id`` that it names in its metrics, as long as nobody else does, or the id of its
                  node, which it cannot choose.
                * ``strata`` (default one): disjoint groups that together are all logical clients; each
                  is sampled in the same proportion, rounded.
                * ``seed`` (default 0): for sampling clients and nodes.
                * ``device`` (default "cpu"): where the rule computes.

        Raises:
            ValueError: an option out of its range.
        """
        self.pre = tuple(options.pop("pre", ()))
        self.server_lr = options.pop("server_lr", 1.0)
        self.upload = options.pop("upload", "weights")
        self.pack_size = options.pop("pack_size", DEFAULT_PACK_SIZE)
        self.densify = options.pop("densify", "zero")
        self.max_client_weight = options.pop("max_client_weight", None)
        self.max_skipped_rounds = options.pop("max_skipped_rounds", 3)
        self.max_round_bytes = options.pop("max_round_bytes", 0)
        self.num_clients = options.pop("num_clients", None)
        self.identity = options.pop("identity", "claimed")
        self.strata = [sorted(group) for group in options.pop("strata", ())]
        self.seed = options.pop("seed", 0)
        self.device = torch.device(options.pop("device", "cpu"))
        self._average_train = options.get("train_metrics_aggr_fn")
        self._average_evaluate = options.get("evaluate_metrics_aggr_fn")
        if self.num_clients is not None:  # one node may host them all
            for name in ("min_train_nodes", "min_evaluate_nodes", "min_available_nodes"):
                options.setdefault(name, 1)  # type: ignore[misc]
        super().__init__(**options)  # type: ignore[misc]
        _check(self.server_lr > 0, "server_lr must be positive", self.server_lr)
        modes = ("weights", "gradient", "topk")
        _check(self.upload in modes, "upload must be weights, gradient or topk", self.upload)
        if self.upload == "topk":
            self.upload_kind = TopKFormat(self.pack_size)
        _check(self.pack_size >= 1, "pack_size must be at least 1", self.pack_size)
        self._check_densify()
        cap = self.max_client_weight
        _check(cap is None or 0 < cap <= 1, "max_client_weight must be in (0, 1]", cap)
        _check(self.max_skipped_rounds >= 1, "max_skipped_rounds must be at least 1", self.max_skipped_rounds)
        _check(self.max_round_bytes >= 0, "max_round_bytes must not be negative", self.max_round_bytes)
        _check(
            self.num_clients is None or self.num_clients >= 1,
            "num_clients must be positive",
            self.num_clients,
        )
        names = ("claimed", "node")
        _check(self.identity in names, "identity must be claimed or node", self.identity)
        _check(
            self.num_clients is None or self.identity == "claimed",
            "with num_clients the server names the clients: identity must be claimed",
            self.identity,
        )
        named = sorted(client for group in self.strata for client in group)
        _check(
            not named or named == list(range(self.num_clients or 0)),
            f"strata must hold each of the {self.num_clients} logical clients once",
            f"{len(named)} ids",
        )
        self.last_round = RoundRecord(0)
        self._layout: Layout | None = None
        self._global: NDArray[Any] = np.empty(0)
        self.roster = self._make_roster()
        self._skipped_in_a_row = 0

    num_byzantine: NumByzantine | None = None

    def _make_roster(self) -> Roster:
        if self.num_clients is not None:
            return CohortRoster(self.num_clients)
        return ClaimRoster() if self.identity == "claimed" else NodeRoster()

    def _check_densify(self) -> None:
        rule, mode = type(self), self.densify
        _check(mode in ("zero", "contributors"), "densify must be zero or contributors", mode)
        if mode == "zero":
            return
        own = rule.aggregate_contributors is not RobustStrategy.aggregate_contributors
        _check(
            rule.coordinate_wise or own,
            f"densify must be zero: {rule.__name__} is neither coordinate-wise nor a mean",
            mode,
        )
        _check(not self.pre, "densify must be zero with pre-aggregations", mode)

    @abstractmethod
    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Aggregate a round's pseudo-gradients.

        Args:
            gradients: n finite rows, ordered by client id; `gradients.matrix()` is the (n, d) tensor.
                Not to be modified.
            weights: (n,) float64, num-examples normalised to sum to 1 (capped): the clients' claim.

        Raises:
            TooFewClients: n is too small for the rule; the round is skipped.
        """

    def aggregate_contributors(self, gradients: PackedRows, weights: torch.Tensor) -> AggregationResult:
        """Aggregate every pack of sparse uploads over the clients that sent it.

        Here: a coordinate-wise rule, to which each pack's contributors are all the rows there are; an f
        given as a fraction is one of them. Packs with too few of them keep the global model's values.

        Args:
            gradients: n rows, see `PackedRows`.
            weights: (n,) as for `aggregate`.

        Raises:
            TooFewClients: no pack has enough contributors.
        """

        def rule(rows: Rows) -> torch.Tensor:
            equal = torch.full((rows.n,), 1 / rows.n, dtype=torch.float64, device=rows.device)
            return self.aggregate(rows, equal).gradient

        gradient, refused = over_contributors(gradients, rule)
        return AggregationResult(gradient, info={"packs-with-too-few": float(refused)})

    def aggregate_buffers(
        self, buffers: torch.Tensor, result: AggregationResult, weights: torch.Tensor
    ) -> torch.Tensor:
        """Aggregate the steps of batch-norm statistics and counters, which the rule itself never sees.

        Here: their coordinate-wise median over the clients that the rule kept. A plain average would
        let one client ruin a model whose parameters are defended.

        Args:
            buffers: (n, num_buffers), on the CPU.
            result: what the rule did with the parameters.
            weights: (n,) as for `aggregate`.
        """
        kept = buffers if result.selected is None else buffers[result.selected.cpu()]
        return column_median(Rows.of(kept))

    def pre_aggregate(self, gradients: torch.Tensor) -> Rows:
        """Apply `pre` to an (n, d) matrix, with this round's seeds."""
        rows = Rows.of(gradients)
        for i, step in enumerate(self.pre):
            rows = step.apply(rows, self.num_byzantine, self.round_seed(f"pre-{i}"))
        return rows

    def apply(self, gradients: Gradients, weights: torch.Tensor) -> AggregationResult:
        """Apply pre-aggregations and rule.

        Args:
            gradients: (n, d) finite rows, ordered by client id, or sparse ones (`PackedRows`).
            weights: (n,) float64, sums to 1.

        Returns:
            The result, with `selected` and `weights` of the n clients.

        Raises:
            TooFewClients: n is too small.
        """
        # Work on all cores is done by blocks; what remains is small, and must not depend on their number.
        with one_thread():
            if isinstance(gradients, PackedRows) and self.densify == "contributors":
                return hold_back(gradients, self.aggregate_contributors(gradients, weights))
            dense = gradients.matrix() if isinstance(gradients, Rows) else gradients
            rows = self.pre_aggregate(dense)
            return self.aggregate(rows, rows.claims(weights)).for_clients(rows)

    def count_byzantine(self, rows: Rows) -> int:
        """Return f for a round: `num_byzantine` itself, or that fraction of the clients, rounded down.

        Of the clients, not of the rows: bucketing makes fewer rows, not fewer attackers.

        Raises:
            ValueError: negative, or a fraction outside [0, 0.5).
        """
        return count_byzantine(self.num_byzantine or 0, rows.num_clients)

    @property
    def layers(self) -> Sequence[slice]:
        """Columns of each trained array of the model; empty before the first round."""
        return () if self._layout is None else self._layout.parameter_slices

    def round_seed(self, purpose: str) -> int:
        """Seed of one use of randomness in this round's aggregation."""
        return seed_for(self.seed, purpose, self.last_round.round)

    def client_config(self) -> dict[str, str | int]:
        """What clients must know to upload what this strategy reads."""
        packs = {PACK_SIZE: self.pack_size} if self.upload == "topk" else {}
        return {UPLOAD_MODE: self.upload, **packs}

    def start(self, grid: Grid, *args: Any, **kwargs: Any) -> flwr_strategy.Result:
        """Run all rounds, as Flower's own strategies do; real nodes are listened to as `GuardedGrid` says."""
        return super().start(guarded(grid), *args, **kwargs)

    # -- sending ---------------------------------------------------------------------------------

    def summary(self) -> None:
        """Log the strategy's settings."""
        hidden = ("last_round", "roster")
        settings = {k: v for k, v in vars(self).items() if not k.startswith("_") and k not in hidden}
        log(INFO, "\t├──> %s", type(self).__name__)
        for name, value in settings.items():
            log(INFO, "\t│\t├── %s: %s", name, getattr(value, "__name__", value))

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the global model to a sample of nodes, or of the clients that they host.

        Raises:
            RoundTooLarge: their uploads would need more than `max_round_bytes`.
        """
        self.set_global(server_round, {name: array_view(array) for name, array in arrays.items()})
        config.update(self.client_config())
        messages = self._messages(
            server_round, arrays, config, grid, MessageType.TRAIN, self.fraction_train, self.min_train_nodes
        )
        asked = sum(len(clients) for clients in self.roster.asked.values())
        self._check_size(asked)
        self.last_round.bytes_down = asked * self._require_layout().nbytes
        self.last_round.wire_bytes["down"] = sum(wire_bytes(m.content) for m in messages[:1]) * len(messages)
        return messages

    def round_bytes(self, clients: int) -> int:
        """Memory, in bytes, that a round with so many clients needs here while it is aggregated.

        What a client sends beyond what it was asked for is not in it, nor are the n x n distances of rules
        that compare clients.
        """
        layout = self._require_layout()
        uploads = clients * self.upload_bytes(layout)
        return math.ceil(uploads + _MODELS * row_bytes(layout) + _TABLES_BYTES)

    def upload_bytes(self, layout: Layout) -> float:
        """Memory that one client's upload, as large as it may be, needs until it is aggregated.

        Here: as it arrived and as a row of the matrix (contributors' packs are read where they are), a fifth
        of a row for what receiving leaves in pieces and a rule notes of every value, and what is in work.
        """
        sparse = self.upload == "topk"
        copies = 1.2 if sparse and self.densify == "contributors" else 2.2
        packs = Packs(layout.d, self.pack_size).count if sparse else 0
        return copies * row_bytes(layout) + _PACK_BYTES * packs + work_bytes(layout)

    def _check_size(self, clients: int) -> None:
        needed = self.round_bytes(clients)
        if self.max_round_bytes and needed > self.max_round_bytes:
            raise RoundTooLarge(
                f"a round of {clients} clients needs {needed} bytes for their uploads, "
                f"max_round_bytes={self.max_round_bytes}; ask fewer clients (fraction_train) or raise it"
            )

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the global model to a sample of nodes, or of the clients that they host."""
        return self._messages(
            server_round,
            arrays,
            config,
            grid,
            MessageType.EVALUATE,
            self.fraction_evaluate,
            self.min_evaluate_nodes,
        )

    def _messages(
        self,
        server_round: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
        grid: Grid,
        message_type: str,
        fraction: float,
        minimum: int,
    ) -> list[Message]:
        asked = self._choose(grid, server_round, message_type, fraction, minimum) if fraction else {}
        self.roster.ask(asked)
        config["server-round"] = server_round
        record = RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: config})
        if self.num_clients is None:
            return list(self._construct_messages(record, list(asked), message_type))
        messages: list[Message] = []
        for node, clients in asked.items():
            own = ConfigRecord({**config, CLIENT_IDS: clients})
            record = RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: own})
            messages += self._construct_messages(record, [node], message_type)
        return messages

    def _choose(
        self, grid: Grid, server_round: int, purpose: str, fraction: float, minimum: int
    ) -> dict[int, list[int]]:
        """Draw who is asked: nodes, ascending, and the clients of each."""
        nodes = wait_for_nodes(grid, max(self.min_available_nodes, minimum))
        hosted = self.roster.meet(nodes)
        random = numpy_generator(self.seed, f"sample-{purpose}", server_round)
        if self.num_clients is None:
            count = min(len(nodes), max(int(len(nodes) * fraction), minimum))
            sample = sorted(random.choice(len(nodes), count, replace=False))
            return {nodes[i]: [*hosted[nodes[i]]] for i in sample}
        chosen = self._sample(self.num_clients, fraction, random)
        asked = {node: sorted(chosen.intersection(hosted[node])) for node in nodes}
        return {node: clients for node, clients in asked.items() if clients}

    def _sample(self, num_clients: int, fraction: float, random: np.random.Generator) -> set[int]:
        """Draw logical clients, of every stratum as many as its size asks for."""
        count = max(1, int(num_clients * fraction))
        drawn: set[int] = set()
        for group in self.strata or [list(range(num_clients))]:
            share = round(count * len(group) / num_clients)
            drawn.update(group[i] for i in random.choice(len(group), share, replace=False).tolist())
        return drawn

    # -- receiving -------------------------------------------------------------------------------

    def set_global(self, server_round: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Remember the global model that this round's clients start from.

        Raises:
            ValueError: the model's arrays changed since the first round.
        """
        layout = Layout.of(arrays)
        if self._layout is not None and layout != self._layout:
            raise ValueError("the global model's arrays changed between rounds")
        self._layout = layout
        self._global = layout.row(list(arrays.values()))
        self.last_round = RoundRecord(server_round)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate what can be trusted to be well-formed; see the class."""
        started = time.perf_counter()
        layout = self._require_layout()
        replies = list(replies)
        self.last_round.wire_bytes["up"] = sum(wire_bytes(m.content) for m in replies if m.has_content())
        uploads, rejections, ignored = collect_uploads(
            replies, self.upload_kind, layout, self.roster, self.weighted_by_key
        )
        self.last_round.ignored = ignored
        _log_ignored(server_round, ignored)
        self.last_round.seconds["decode"] = time.perf_counter() - started
        row = self.aggregate_uploads(uploads, rejections)
        metrics = self._train_metrics(uploads)
        if row is None:
            return None, metrics
        return array_record(dict(zip(layout.names, layout.arrays(row), strict=True))), metrics

    def aggregate_uploads(
        self, uploads: Sequence[Upload], rejections: Iterable[Rejection] = ()
    ) -> NDArray[Any] | None:
        """Apply the rule to well-formed uploads and step the global model.

        Args:
            uploads: of distinct clients, of this strategy's kind.
            rejections: who was quarantined before.

        Returns:
            The new global row (see `Layout`), or None if the round was skipped.

        Raises:
            TooManySkippedRounds: as the class says.
        """
        layout, record = self._require_layout(), self.last_round
        record.rejections += rejections
        sent = [size for upload in uploads for size in upload.client_bytes(layout)]
        record.bytes_up = sum(sent)
        if self.upload == "topk" and sent:
            record.info["bytes-to-dense"] = record.bytes_up / (len(sent) * layout.nbytes)
        started = time.perf_counter()
        if sum(sent) >= _LARGE_ROUND:
            memory.give_back()
        matrix = self._stack(uploads, layout)
        record.rejections += self.roster.settle(matrix.client_ids, matrix.rejections)
        record.clients = matrix.client_ids
        record.masks = matrix.masks
        record.seconds["decode"] = record.seconds.get("decode", 0.0) + time.perf_counter() - started
        for rejection in record.rejections:
            log(WARNING, "round %d: client %d quarantined: %s", record.round, *rejection)
        started = time.perf_counter()
        try:
            row = self._step(matrix, layout)
        except TooFewClients as reason:
            row, record.skipped = None, str(reason)
        record.seconds["aggregate"] = time.perf_counter() - started
        self._count_skips(record)
        return row

    def _stack(self, uploads: Sequence[Upload], layout: Layout) -> Any:
        """Bring uploads into the order of their clients' ids; leave out those that nothing can be made of."""
        stacked = stack(uploads, None if self.upload == "gradient" else self._global, layout)
        return stacked.without(misfits(stacked, self._global, self.server_lr, layout))

    def _step(self, matrix: Any, layout: Layout) -> NDArray[Any]:
        n = len(matrix.client_ids)
        if n == 0:
            raise TooFewClients("no usable upload arrived")
        weights = capped_weights(torch.from_numpy(matrix.num_examples), self.max_client_weight)
        result = self.apply(matrix.gradients(self.device), weights.to(self.device))
        step = np.empty_like(self._global)
        step[: layout.d] = result.gradient.cpu().numpy()
        step[: layout.d] *= self.server_lr
        if layout.num_buffers:
            step[layout.d :] = self.aggregate_buffers(matrix.buffers, result, weights).numpy()
        new: NDArray[Any] = np.subtract(self._global, step, out=step)
        if not is_held(new, layout):
            raise TooFewClients("the new model would not be finite")
        self._note(matrix.client_ids, result)
        return new

    def _note(self, clients: list[int], result: AggregationResult) -> None:
        record = self.last_round
        if result.selected is not None:
            kept = result.selected.tolist()
            record.selected = [client for client, keep in zip(clients, kept, strict=True) if keep]
        if result.weights is not None:
            record.weights = result.weights.tolist()
        record.dropped = [Rejection(clients[i], reason) for i, reason in sorted(result.reasons.items())]
        record.info = {**record.info, **result.info}

    def _count_skips(self, record: RoundRecord) -> None:
        if record.skipped is None:
            self._skipped_in_a_row = 0
            return
        self._skipped_in_a_row += 1
        log(WARNING, "round %d skipped: %s", record.round, record.skipped)
        if self._skipped_in_a_row >= self.max_skipped_rounds:
            raise TooManySkippedRounds(
                f"{self._skipped_in_a_row} rounds in a row were skipped "
                f"(max_skipped_rounds={self.max_skipped_rounds}); the last because {record.skipped}"
            )

    def _require_layout(self) -> Layout:
        if self._layout is None:
            raise RuntimeError("aggregate_train before configure_train: the global model is not known")
        return self._layout

    # -- state -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """What must be saved with the model to go on later with the same result."""
        return {"skipped_in_a_row": np.array(self._skipped_in_a_row)}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what `state_dict` gave."""
        self._skipped_in_a_row = int(state["skipped_in_a_row"])

    # -- metrics ---------------------------------------------------------------------------------

    def _train_metrics(self, uploads: Sequence[Upload]) -> MetricRecord | None:
        accepted = set(self.last_round.clients)
        clients = [
            (size, metrics)
            for upload in uploads
            for client, size, metrics in zip(
                upload.client_ids, upload.num_examples.tolist(), upload.metrics, strict=True
            )
            if client in accepted
        ]
        return self._average(clients, self._average_train)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Average the clients' metrics, leaving out malformed replies."""
        clients, rejections, ignored = collect_evaluations(replies, self.roster, self.weighted_by_key)
        for client, reason in rejections:
            log(WARNING, "round %d: evaluation of client %d ignored: %s", server_round, client, reason)
        _log_ignored(server_round, ignored)
        return self._average(clients, self._average_evaluate)

    def _average(
        self, clients: Sequence[tuple[float, dict[str, float]]], average: Any
    ) -> MetricRecord | None:
        """Average the metrics that most clients report, over the clients that report them all.

        A metric that is not finite, or beyond `MAX_METRIC`, is none. Weighted by size, or by the user's
        function if there is one (Flower's default is that of this method, one record at a time).
        """
        reported = [{k: v for k, v in metrics.items() if can_be_averaged(v)} for _, metrics in clients]
        keys = most_have(reported)
        clients = [
            (size, own)
            for (size, _), own in zip(clients, reported, strict=True)
            if all(key in own for key in keys)
        ]
        if not clients:
            return None
        if average is None:
            total = math.fsum(size for size, _ in clients)
            shares = [size / total for size, _ in clients]
            return MetricRecord(
                {k: sum(s * m[k] for s, (_, m) in zip(shares, clients, strict=True)) for k in keys}
            )
        contents = [
            RecordDict(
                {"metrics": MetricRecord({self.weighted_by_key: size, **{k: metrics[k] for k in keys}})}
            )
            for size, metrics in clients
        ]
        result: MetricRecord = average(contents, self.weighted_by_key)
        return result


def _log_ignored(server_round: int, ignored: Iterable[Ignored]) -> None:
    for node, reason in ignored:
        log(WARNING, "round %d: node %d %s", server_round, node, reason)


def row_bytes(layout: Layout) -> int:
    """Bytes of a row."""
    return layout.width * layout.row_dtype.itemsize


def work_bytes(layout: Layout) -> int:
    """Bytes of one client's share in what a rule has in work at a time, on all cores."""
    return _WORK_BYTES * min(layout.d, usable_cores() * _WORK_COLUMNS)


class BoundedStrategy(RobustStrategy):
    """Base of rules whose one parameter is the number of Byzantine clients that they tolerate."""

    def __init__(self, num_byzantine: NumByzantine = 0, **options: Unpack[StrategyOptions]) -> None:
        """Make the strategy.

        Args:
            num_byzantine: f, or the fraction of the clients that replied.
            options: see `RobustStrategy`.
        """
        super().__init__(**options)
        self.num_byzantine = num_byzantine


class RememberingStrategy(RobustStrategy):
    """Base of rules that look back at the last aggregate, which is saved with the model.

    Attributes:
        previous: (d,) the last finite aggregate, None before the first.
    """

    previous: torch.Tensor | None = None

    def apply(self, gradients: Gradients, weights: torch.Tensor) -> AggregationResult:
        """See `RobustStrategy`; remembers the aggregate."""
        result = super().apply(gradients, weights)
        if torch.isfinite(result.gradient).all():
            self.previous = result.gradient.clone()  # the caller may step in place
        return result

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """See `RobustStrategy`."""
        previous = np.empty(0) if self.previous is None else self.previous.cpu().numpy()
        return {**super().state_dict(), "previous": previous}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """See `RobustStrategy`."""
        super().load_state_dict(state)
        previous = torch.from_numpy(np.array(state["previous"])).to(self.device)
        self.previous = previous if len(previous) else None
