"""RobustStrategy: all of a Flower strategy that is neither the aggregation rule nor the kind of upload."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from logging import INFO, WARNING
from typing import Any, ClassVar, Unpack

import numpy as np
import torch
from flwr.common import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict, log
from flwr.server import Grid
from flwr.serverapp import strategy as flwr_strategy
from numpy.typing import NDArray

from byzflower.flower.compat import array_record, array_view, wire_bytes
from byzflower.flower.guarded import guarded
from byzflower.numerics import heap
from byzflower.numerics.columns import column_median
from byzflower.numerics.packed_rows import PackedRows, over_contributors
from byzflower.numerics.randomness import numpy_generator, seed_for
from byzflower.numerics.rows import Rows, TooFewClients
from byzflower.numerics.threads import one_thread
from byzflower.strategies.leeway import hold_back
from byzflower.strategies.metrics import accepted_metrics, average_metrics
from byzflower.strategies.options import StrategyOptions, kind_of
from byzflower.strategies.record import RoundRecord
from byzflower.strategies.result import (
    AggregationResult,
    NumByzantine,
    capped_weights,
    count_byzantine,
    uniform_over,
)
from byzflower.strategies.result import check as _check
from byzflower.strategies.sampling import sample_clients, wait_for_nodes
from byzflower.uploads.base import CLIENT_IDS, Ignored, Rejection, Upload
from byzflower.uploads.codec import collect_evaluations, collect_uploads
from byzflower.uploads.kind import UploadKind
from byzflower.uploads.limits import is_held
from byzflower.uploads.roster import ClaimRoster, CohortRoster, NodeRoster, Roster
from byzflower.uploads.round import Aggregate, Broadcast, UploadRound, row_bytes

# Rows of the model's size: the global one, the aggregate, the step, a rule's centres and sums.
_MODELS = 8
# Batches of subsets, of items, of packs.
_TABLES_BYTES = 1 << 26
# Bytes of uploads in a round above which freed memory is returned to the system.
_LARGE_ROUND = 1 << 28


class TooManySkippedRounds(RuntimeError):
    """No aggregate could be made for `max_skipped_rounds` rounds in a row."""


class RoundTooLarge(MemoryError):
    """A round's uploads would need more memory than `max_round_bytes`."""


class RobustStrategy(flwr_strategy.FedAvg, ABC):
    """Base of all strategies: decode replies, make rows, apply the rule, step, record.

    A subclass implements `aggregate` and names its own parameters; `upload` is the kind of upload, which it
    is composed with. Replies are untrusted: one that is malformed in any way is quarantined, with its reason
    in `last_round`, and the round goes on with the others. If too few are left for the rule, the global
    model stays; f is not lowered for it, since who crashed need not be who attacks. Leave room for that:
    Byzantine clients may send garbage, too.
    """

    coordinate_wise: ClassVar[bool] = False  # coordinate-wise and permutation-invariant
    by_item: ClassVar[bool] = False  # aggregates item by item

    def __init__(self, **options: Unpack[StrategyOptions]) -> None:
        """Make the strategy.

        Args:
            options: everything that `flwr.serverapp.strategy.FedAvg` takes, and

                * ``pre`` (default none): pre-aggregations, applied in order before the rule. What
                  the rule selects and weights is then told of the clients as
                  `AggregationResult.for_clients` says.
                * ``server_lr`` (default 1): step size v in w <- w - v * aggregate, positive.
                * ``upload`` ("weights", "gradient" or "topk", or an `UploadKind`): what clients send. Models
                  are turned into pseudo-gradients g_i = w - w_i, of sparse models the packs that were
                  sent; gradients are used as they are. `TopK(ratio=0.1)` or `Moments(Adam())` say more.
                * ``pack_size`` (default 64): of "topk", scalars in a pack; clients are told.
                * ``densify`` ("zero" or "contributors"): of "topk", what a rule sees of packs that a client
                  did not send: an update of 0, or not that client. The second is for coordinate-wise rules
                  and means.
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
        self.upload: UploadKind = kind_of(
            options.pop("upload", "weights"), options.pop("pack_size", None), options.pop("densify", None)
        )
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
        self._check_options()
        self.last_round = RoundRecord(0)
        self.roster = self._make_roster()
        self._sent: Broadcast | None = None
        self._skipped_in_a_row = 0

    num_byzantine: NumByzantine | None = None

    def _check_options(self) -> None:
        _check(self.server_lr > 0, "server_lr must be positive", self.server_lr)
        cap = self.max_client_weight
        _check(cap is None or 0 < cap <= 1, "max_client_weight must be in (0, 1]", cap)
        _check(self.max_skipped_rounds >= 1, "max_skipped_rounds must be at least 1", self.max_skipped_rounds)
        _check(self.max_round_bytes >= 0, "max_round_bytes must not be negative", self.max_round_bytes)
        count = self.num_clients
        _check(count is None or count >= 1, "num_clients must be positive", count)
        _check(self.identity in ("claimed", "node"), "identity must be claimed or node", self.identity)
        _check(
            count is None or self.identity == "claimed",
            "with num_clients the server names the clients: identity must be claimed",
            self.identity,
        )
        named = sorted(client for group in self.strata for client in group)
        _check(
            not named or named == list(range(count or 0)),
            f"strata must hold each of the {count} logical clients once",
            f"{len(named)} ids",
        )
        self._check_upload()

    def _check_upload(self) -> None:
        rule, kind = type(self), self.upload
        fits = rule.by_item == kind.by_item
        _check(fits, f"{rule.__name__} cannot read uploads of this kind", kind.name)
        alone = not kind.owns_step or self.server_lr == 1
        _check(alone, f"of {kind.name} uploads the step is the clients': server_lr must be 1", self.server_lr)
        if not kind.by_contributors:
            return
        own = rule.aggregate_contributors is not RobustStrategy.aggregate_contributors
        able = rule.coordinate_wise or own
        reason = f"densify must be zero: {rule.__name__} is neither coordinate-wise nor a mean"
        _check(able, reason, "contributors")
        _check(not self.pre, "densify must be zero with pre-aggregations", "contributors")

    def _make_roster(self) -> Roster:
        if self.num_clients is not None:
            return CohortRoster(self.num_clients)
        return ClaimRoster() if self.identity == "claimed" else NodeRoster()

    # -- the rule --------------------------------------------------------------------------------

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

    def apply(self, gradients: Any, weights: torch.Tensor) -> AggregationResult:
        """Apply pre-aggregations and rule.

        Args:
            gradients: what `UploadRound.gradients` gives, of n clients: a finite (n, d) matrix, or rows.
            weights: (n,) float64, sums to 1.

        Returns:
            The result, with `selected` and `weights` of the n clients.

        Raises:
            TooFewClients: n is too small.
        """
        # Work on all cores is done by blocks; what remains is small, and must not depend on their number.
        with one_thread():
            if self.upload.by_contributors:
                packed = PackedRows.of_matrix(gradients)
                return hold_back(packed, self.aggregate_contributors(packed, weights))
            dense = gradients.matrix() if isinstance(gradients, Rows) else gradients
            rows = self.pre_aggregate(dense)
            return self.aggregate(rows, rows.from_clients(weights)).for_clients(rows)

    def count_byzantine(self, rows: Rows) -> int:
        """Return f for a round: `num_byzantine` itself, or that fraction of the clients, rounded down.

        Of the clients, not of the rows: bucketing makes fewer rows, not fewer attackers.

        Raises:
            ValueError: negative, or a fraction outside [0, 0.5).
        """
        return count_byzantine(self.num_byzantine or 0, rows.num_clients)

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
    def layers(self) -> Sequence[slice]:
        """Columns of each trained array of the model; empty before the first round."""
        return () if self._sent is None else self._sent.layout.parameter_slices

    def round_seed(self, purpose: str) -> int:
        """Seed of one use of randomness in this round's aggregation."""
        return seed_for(self.seed, purpose, self.last_round.round)

    def follow(self, other: "RobustStrategy") -> None:
        """Share another strategy's seed and record: this rule is a part of it."""
        self.seed, self.last_round = other.seed, other.last_round

    def start(self, grid: Grid, *args: Any, **kwargs: Any) -> flwr_strategy.Result:
        """Run all rounds, as Flower's own strategies do; real nodes are listened to as `GuardedGrid` says."""
        return super().start(guarded(grid), *args, **kwargs)

    def summary(self) -> None:
        """Log the strategy's settings."""
        hidden = ("last_round", "roster")
        settings = {k: v for k, v in vars(self).items() if not k.startswith("_") and k not in hidden}
        log(INFO, "\t├──> %s", type(self).__name__)
        for name, value in settings.items():
            log(INFO, "\t│\t├── %s: %s", name, getattr(value, "__name__", value))

    # -- sending ---------------------------------------------------------------------------------

    def set_global(self, server_round: int, arrays: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Begin a round from this global model; returns the arrays to send.

        Raises:
            ValueError: the model's arrays changed since the first round.
        """
        broadcast = self.upload.broadcast(arrays)
        sent = Broadcast.of(broadcast)
        if self._sent is not None and sent.layout != self._sent.layout:
            raise ValueError("the global model's arrays changed between rounds")
        self._sent, self.last_round = sent, RoundRecord(server_round)
        return broadcast

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the global model to a sample of nodes, or of the clients that they host.

        Raises:
            RoundTooLarge: their uploads would need more than `max_round_bytes`.
        """
        model = {name: array_view(array) for name, array in arrays.items()}
        broadcast = self.set_global(server_round, model)
        if broadcast is not model:
            arrays = array_record(dict(broadcast))
        config.update(self.upload.told())
        messages = self._messages(
            server_round, arrays, config, grid, MessageType.TRAIN, self.fraction_train, self.min_train_nodes
        )
        asked = sum(len(clients) for clients in self.roster.asked.values())
        self._check_size(asked)
        self.last_round.bytes_down = asked * self.sent.layout.nbytes
        self.last_round.wire_bytes["down"] = sum(wire_bytes(m.content) for m in messages[:1]) * len(messages)
        return messages

    def round_bytes(self, clients: int) -> int:
        """Memory, in bytes, that a round with so many clients needs here while it is aggregated.

        What a client sends beyond what it was asked for is not in it, nor are the n x n distances of rules
        that compare clients.
        """
        layout = self.sent.layout
        uploads = clients * self.upload.upload_bytes(layout)
        return math.ceil(uploads + _MODELS * row_bytes(layout) + _TABLES_BYTES)

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
        fraction, minimum = self.fraction_evaluate, self.min_evaluate_nodes
        return self._messages(server_round, arrays, config, grid, MessageType.EVALUATE, fraction, minimum)

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
        chosen = sample_clients(self.num_clients, self.strata, fraction, random)
        asked = {node: sorted(chosen.intersection(hosted[node])) for node in nodes}
        return {node: clients for node, clients in asked.items() if clients}

    # -- receiving -------------------------------------------------------------------------------

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate what can be trusted to be well-formed; see the class."""
        uploads, rejections = self._decode([*replies])
        row = self.aggregate_uploads(uploads, rejections)
        reported = accepted_metrics(uploads, self.last_round.clients)
        metrics = average_metrics(reported, self._average_train, self.weighted_by_key)
        return (None if row is None else array_record(self.upload.model(row, self.sent.layout))), metrics

    def _decode(self, replies: list[Message]) -> tuple[list[Upload], list[Rejection]]:
        record = self.last_round
        with self._timed("decode"):
            record.wire_bytes["up"] = sum(wire_bytes(m.content) for m in replies if m.has_content())
            uploads, rejections, record.ignored = collect_uploads(
                replies, self.upload, self.sent.layout, self.roster, self.weighted_by_key
            )
        _log_ignored(record.round, record.ignored)
        return uploads, rejections

    def aggregate_uploads(
        self, uploads: Sequence[Upload], rejections: Iterable[Rejection] = ()
    ) -> NDArray[Any] | None:
        """Make rows of well-formed uploads, apply the rule, step, and record all of it.

        Args:
            uploads: of distinct clients, of this strategy's kind.
            rejections: who was quarantined before.

        Returns:
            The new global row (see `Layout`), or None if the round was skipped.

        Raises:
            TooManySkippedRounds: as the class says.
        """
        record = self.last_round
        record.rejections += rejections
        with self._timed("decode"):
            self._weigh(uploads)
            rows = self.upload.rows(uploads, self.sent, self.server_lr)
            self._note_arrivals(rows)
        new = None
        with self._timed("aggregate"):
            try:
                new = self._step(rows)
            except TooFewClients as reason:
                record.skipped = str(reason)
        self._count_skips(record)
        return new

    def _step(self, rows: UploadRound) -> NDArray[Any]:
        if not rows.client_ids:
            raise TooFewClients("no usable upload arrived")
        weights = capped_weights(torch.from_numpy(rows.num_examples), self.max_client_weight)
        result = self.apply(rows.gradients(self.device), weights.to(self.device))
        new = self.upload.step(rows, self._aggregate_of(result, rows, weights), self.sent, self.server_lr)
        if not is_held(new, self.sent.layout):
            raise TooFewClients("the new model would not be finite")
        self.upload.taken(new, self.sent)
        self._note(rows.client_ids, result)
        return new

    def _aggregate_of(self, result: AggregationResult, rows: UploadRound, weights: torch.Tensor) -> Aggregate:
        """What the step needs to know of a rule's result."""
        share = result.weights
        if result.selected is not None:
            share = uniform_over(result.selected.cpu(), weights)
        buffers = rows.buffers
        if buffers.shape[1]:
            buffers = self.aggregate_buffers(buffers, result, weights)
        else:
            buffers = buffers.new_empty(0)
        moves = None if result.moves is None else result.moves.cpu()
        return Aggregate(result.gradient.cpu(), weights if share is None else share.cpu(), buffers, moves)

    # -- the record ------------------------------------------------------------------------------

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        started, seconds = time.perf_counter(), self.last_round.seconds
        yield
        seconds[what] = seconds.get(what, 0.0) + time.perf_counter() - started

    def _weigh(self, uploads: Sequence[Upload]) -> None:
        record, layout = self.last_round, self.sent.layout
        sent = [size for upload in uploads for size in upload.client_bytes(layout)]
        record.bytes_up = sum(sent)
        record.info.update(self.upload.info(record.bytes_up, len(sent), layout))
        if record.bytes_up >= _LARGE_ROUND:
            heap.trim()

    def _note_arrivals(self, rows: UploadRound) -> None:
        record = self.last_round
        record.rejections += self.roster.settle(rows.client_ids, rows.rejections)
        record.clients, record.masks = rows.client_ids, rows.masks
        for rejection in record.rejections:
            log(WARNING, "round %d: client %d quarantined: %s", record.round, *rejection)

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

    # -- state -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """What must be saved with the model to go on later with the same result."""
        return {"skipped_in_a_row": np.array(self._skipped_in_a_row), **self.upload.state_dict()}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what `state_dict` gave."""
        self._skipped_in_a_row = int(state["skipped_in_a_row"])
        self.upload.load_state_dict(state)

    # -- evaluation ------------------------------------------------------------------------------

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Average the clients' metrics, leaving out malformed replies."""
        clients, rejections, ignored = collect_evaluations(replies, self.roster, self.weighted_by_key)
        for client, reason in rejections:
            log(WARNING, "round %d: evaluation of client %d ignored: %s", server_round, client, reason)
        _log_ignored(server_round, ignored)
        return average_metrics(clients, self._average_evaluate, self.weighted_by_key)


def _log_ignored(server_round: int, ignored: Iterable[Ignored]) -> None:
    for node, reason in ignored:
        log(WARNING, "round %d: node %d %s", server_round, node, reason)


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

    def apply(self, gradients: Any, weights: torch.Tensor) -> AggregationResult:
        """Apply the rule, and remember the aggregate."""
        result = super().apply(gradients, weights)
        if torch.isfinite(result.gradient).all():
            self.previous = result.gradient.clone()  # the caller may step in place
        return result

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """With the last aggregate."""
        previous = np.empty(0) if self.previous is None else self.previous.cpu().numpy()
        return {**super().state_dict(), "previous": previous}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore it."""
        super().load_state_dict(state)
        previous = torch.from_numpy(np.array(state["previous"])).to(self.device)
        self.previous = previous if len(previous) else None
