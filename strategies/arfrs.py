"""A-RFRS and its siblings: filter clients by the gradients that their optimizers' moments give away."""

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar, Unpack

import numpy as np
import torch
from flwr.common import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.server import Grid
from numpy.typing import NDArray

from byzflower.strategies.base import RobustStrategy, StrategyOptions, row_bytes, work_bytes
from byzflower.strategies.result import AggregationResult, NumByzantine, capped_weights, check, uniform_over
from byzflower.strategies.rows import Rows, TooFewClients
from byzflower.strategies.stack import Stacked
from byzflower.threads import map_blocks
from byzflower.uploads.base import Rejection, Upload
from byzflower.uploads.flower_compat import array_record, array_view
from byzflower.uploads.layout import Layout
from byzflower.uploads.moments import (
    MomentsLayout,
    MomentsUpload,
    Touched,
    blocks,
    ends_of,
    moments_layout,
)
from byzflower.uploads.optimizers import AdaGrad, Adam, MomentumSGD, Optimizer, RMSProp

T = TypeVar("T")
Inspect = Literal["gradients", "parameters"]
Units = slice | torch.Tensor


@dataclass
class MomentsRound(Stacked):
    """Moments uploads, those left out that broke the update rule.

    Coordinates no client touched equal `nothing` and are not stored: all clients are alike there, with
    gradient 0. Uploads stay where they are, and are read by blocks.

    Attributes:
        layout: of model and moments.
        clients: the n clients' values; their rows are numbered among those that anybody touched.
        steps: (n, num_buffers) steps of the buffers.
        nothing: (depth, d) state of a client that touched nothing.
        units: which units of the state anybody touched.
        starts: first of these units of each touched row, and where the last ends.
        before: (depth, touched units, unit) of the state that was broadcast.
        optimizer: whose step the clients took.
        inspect: what the filter looks at.
    """

    layout: MomentsLayout
    clients: list[Touched]
    steps: NDArray[Any]
    nothing: NDArray[Any]
    units: NDArray[np.bool_]
    starts: NDArray[np.int64]
    before: torch.Tensor
    optimizer: Optimizer
    inspect: Inspect

    @cached_property
    def rest(self) -> torch.Tensor:
        """(depth, touched units, unit) of `nothing`."""
        return torch.from_numpy(self.layout.by_unit(self.nothing)[:, self.units])

    def gradients(self, device: torch.device) -> torch.Tensor:
        """What the filter sees: (n, columns that anybody touched)."""
        return self.seen(self.inspect).to(device)

    @property
    def buffers(self) -> torch.Tensor:
        """See `Stacked`."""
        return torch.from_numpy(self.steps)

    def seen(self, what: Inspect) -> torch.Tensor:
        """The clients' gradients or parameters: (n, columns that anybody touched)."""
        if what == "parameters":
            return self.slot(0)
        return self._rows(
            torch.zeros_like(self.rest[0]),
            lambda after, units: self.optimizer.recover(self.before[:, units], after),
        )

    def slot(self, index: int) -> torch.Tensor:
        """The clients' parameters (0) or one of their moments: (n, columns that anybody touched)."""
        return self._rows(self.rest[index], lambda after, units: after[index])

    def _rows(
        self, untouched: torch.Tensor, values: Callable[[torch.Tensor, Units], torch.Tensor]
    ) -> torch.Tensor:
        """One row for each client: `values` of its state where it touched any, else those `untouched`.

        Rules need a column: if nobody touched anything there is one, of zeros.
        """
        if not self.units.any():
            return self.rest.new_zeros(len(self.clients), 1)
        rows = untouched.repeat(len(self.clients), 1, 1)

        def write(one: slice) -> None:
            row = rows[one.start]

            def write_block(after: torch.Tensor, units: Units) -> None:
                row[units] = values(after, units)

            self._map(self.clients[one.start], write_block)

        map_blocks(write, len(rows), 1)
        return rows.view(len(rows), -1)

    def _map(self, client: Touched, work: Callable[[torch.Tensor, Units], None]) -> None:
        map_units(self.layout, client, self.starts, work)

    def mean(self, shares: torch.Tensor) -> torch.Tensor:
        """Weighted mean of the clients' states where anybody touched them: (depth, units, unit) float64.

        The sum of how far they are from `rest`, always in the order of the clients.
        """
        rest, total = self.rest, self.rest.to(torch.float64, copy=True)
        for client, share in zip(self.clients, shares.tolist(), strict=True):

            def add(after: torch.Tensor, units: Units, share: float = share) -> None:
                change = after.double().sub_(rest[:, units]).mul_(share)
                if isinstance(units, slice):
                    total[:, units] += change
                else:
                    total.index_add_(1, units, change)

            if share != 0:
                self._map(client, add)
        return total


def map_units(
    layout: MomentsLayout,
    client: Touched,
    starts: NDArray[np.int64],
    work: Callable[[torch.Tensor, Units], T],
) -> list[T]:
    """Call `work` with all of a client's values, by blocks, on all cores; results come in their order.

    Args:
        layout: of model and moments.
        client: what it sent.
        starts: first unit of each row of a state in which the client's rows are numbered.
        work: is given a copy of values (depth, units, unit), and the units of the state that they are of.
    """
    values = layout.by_unit(client.values)
    parts = list(blocks(starts, client.rows, layout.block_units))

    def on_block(one: slice) -> T:
        own, units = parts[one.start]
        after = torch.from_numpy(np.array(values[:, own], order="C"))
        return work(after, units if isinstance(units, slice) else torch.from_numpy(units))

    return map_blocks(on_block, len(parts), 1)


class MomentsStrategy(RobustStrategy):
    """Base of strategies whose clients take one optimizer step from the server's moments.

    The server broadcasts parameters and moments, both of which the strategy owns; the model that it
    hands to the server's loop is the parameters alone. From each upload it recovers the gradient,
    verifies that the upload obeys the optimizer's rule, filters the clients, and averages parameters
    and moments of those that are left, each separately, weighted by num-examples.
    """

    upload_kind = MomentsUpload

    def __init__(
        self,
        optimizer: Optimizer,
        num_byzantine: NumByzantine,
        filter: str | RobustStrategy | None,
        inspect: Inspect,
        tolerance: float,
        **options: Unpack[StrategyOptions],
    ) -> None:
        """Make the strategy.

        Args:
            optimizer: whose step the clients take.
            num_byzantine: f, or the fraction of the clients that replied.
            filter: name of the rule that decides who is kept, or the rule itself; None keeps all.
                Rules that select (Multi-Krum, MDA, DnC, ...) name the clients to keep; rules that only
                weight (the geometric median) give the weights of the averages.
            inspect: what the filter looks at: recovered "gradients", or the "parameters" as uploaded.
            tolerance: of the update rule; see `Optimizer.obeyed`.
            options: see `RobustStrategy`. `upload` and `server_lr` keep their defaults: clients upload
                models, and the step is the clients'.

        Raises:
            ValueError: an option out of its range.
        """
        super().__init__(**options)
        check(inspect in ("gradients", "parameters"), "inspect must be gradients or parameters", inspect)
        check(tolerance > 0, "tolerance must be positive", tolerance)
        check(self.upload == "weights", "moments travel with weights: upload must be weights", self.upload)
        check(self.server_lr == 1, "the clients take the step: server_lr must be 1", self.server_lr)
        self.optimizer = optimizer
        self.num_byzantine = num_byzantine
        self.filter = make_filter(filter, num_byzantine) if isinstance(filter, str) else filter
        self.inspect = inspect
        self.tolerance = tolerance
        self._moments: NDArray[Any] = np.empty(0)
        self._last: MomentsRound | None = None
        self._steps = 0

    # -- the filter --------------------------------------------------------------------------------

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply the filter to what is inspected.

        Raises:
            ValueError: the filter neither selects nor weights clients.
        """
        if self.filter is None:
            return AggregationResult(gradients.combine(weights), weights=weights)
        self.filter.seed, self.filter.last_round = self.seed, self.last_round
        result = self.filter.aggregate(gradients, weights)
        if result.selected is None and result.weights is None:
            raise ValueError(f"filter {type(self.filter).__name__} neither selects nor weights clients")
        return result

    # -- sending -----------------------------------------------------------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send parameters and moments to a sample of clients."""
        model = {name: array_view(array) for name, array in arrays.items()}
        return super().configure_train(server_round, array_record(self.with_moments(model)), config, grid)

    def client_config(self) -> dict[str, Any]:
        """See `RobustStrategy`; with the optimizer and the step to take."""
        return {**super().client_config(), **self.optimizer.to_config(self._steps + 1)}

    def with_moments(self, model: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The arrays to broadcast: the model's, and the moments of each parameter, at first zero."""
        layout = MomentsLayout(Layout.of(model), self.optimizer.slots).full
        row = layout.row([*model.values(), *(np.zeros(s) for s in layout.shapes[len(model) :])])
        d = moments_layout(layout).model.d
        if len(self._moments):
            row[d : d + len(self._moments)] = self._moments
        return dict(zip(layout.names, layout.arrays(row), strict=True))

    def upload_bytes(self, layout: Layout) -> float:
        """See `RobustStrategy`.

        As it arrived, the rows that it touched unless it sent just those, a row of what the filter sees and
        a fifth of it for the filter; and the numbers of its rows.
        """
        own = moments_layout(layout)
        filtered = 1.2 * own.model.d * layout.row_dtype.itemsize
        return 2.1 * row_bytes(layout) + filtered + 3 * own.rows.nbytes + work_bytes(own.model)

    # -- receiving ---------------------------------------------------------------------------------

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate; the moments stay here."""
        arrays, metrics = super().aggregate_train(server_round, replies)
        if arrays is None:
            return None, metrics
        names = moments_layout(self._require_layout()).model.names
        return array_record({name: array_view(arrays[name]) for name in names}), metrics

    def set_global(self, server_round: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """See `RobustStrategy`; the last round's uploads are no longer needed."""
        super().set_global(server_round, arrays)
        self._last = None

    def _stack(self, uploads: Sequence[Upload], layout: Layout) -> MomentsRound:
        """Verify the update rule, of each client by itself; work and memory grow with touched rows."""
        own, t = moments_layout(layout), self._steps + 1
        before = torch.from_numpy(own.by_unit(own.state(self._global)))
        rest = self.optimizer.step(before, torch.zeros(()), t)
        nothing = rest.view(own.depth, -1).numpy()
        buffers = self._global[own.depth * own.model.d :]
        known = [upload for upload in uploads if isinstance(upload, MomentsUpload)]
        sent = {c: (upload, i) for upload in known for i, c in enumerate(upload.client_ids)}
        order = sorted(sent)

        def judge(one: slice) -> tuple[Touched, str | None]:
            upload, i = sent[order[one.start]]
            client = own.without_untouched(upload.client(i), nothing)
            with np.errstate(over="ignore", invalid="ignore"):
                step = buffers - client.buffers
            client = client._replace(buffers=step)  # no view that would keep a whole row
            if not np.isfinite(client.buffers).all():
                return client, "NaN or Inf in the buffers"
            return client, self._fault(client, own, before, t)

        judged = dict(zip(order, map_blocks(judge, len(order), 1), strict=True))
        good = {c: client for c, (client, fault) in judged.items() if fault is None}
        touched = np.zeros(own.num_rows, np.bool_)
        for client in good.values():
            touched[client.rows] = True
        places = (np.cumsum(touched) - 1).astype(np.int32)
        sizes = np.diff(own.unit_starts)
        units = np.repeat(touched, sizes)
        return MomentsRound(
            [*good],
            np.array([sent[c][0].num_examples[sent[c][1]] for c in good]),
            [Rejection(c, fault) for c, (_, fault) in judged.items() if fault is not None],
            int(own.widths[touched].sum()),
            own,
            [client._replace(rows=places[client.rows]) for client in good.values()],
            np.array([client.buffers for client in good.values()]).reshape(len(good), -1),
            nothing,
            units,
            ends_of(sizes[touched]),
            before[:, torch.from_numpy(units)],
            self.optimizer,
            self.inspect,
        )

    def _fault(self, client: Touched, own: MomentsLayout, before: torch.Tensor, t: int) -> str | None:
        """Why a client cannot have taken step `t` from the state `before`, or None."""

        def verify(after: torch.Tensor, units: Units) -> tuple[int, float]:
            start = before[:, units]
            obeyed = self.optimizer.obeyed(start, after, t, self.tolerance)
            gradient = self.optimizer.recover(start, after).double()
            return obeyed.numel() - int(obeyed.count_nonzero()), float(gradient.square_().sum())

        verified = map_units(own, client, own.unit_starts, verify)
        broken, square = sum(bad for bad, _ in verified), sum(part for _, part in verified)
        if broken:
            name, width = self.optimizer.name, client.values.shape[1]
            return f"breaks the update rule of {name} in {broken} of {width} coordinates"
        dtype = client.values.dtype
        if not square <= float(np.finfo(dtype).max):
            return f"the squared norm of its recovered gradient overflows {dtype}"
        return None

    def _step(self, matrix: MomentsRound, layout: Layout) -> NDArray[Any]:
        own, self._last = moments_layout(layout), matrix
        if len(matrix.clients) == 0:
            raise TooFewClients("no usable upload arrived")
        weights = capped_weights(torch.from_numpy(matrix.num_examples), self.max_client_weight)
        result = self.apply(matrix.gradients(self.device), weights.to(self.device))
        share = result.weights if result.selected is None else uniform_over(result.selected.cpu(), weights)
        shares = weights if share is None else share.cpu()
        new = self._global.copy()
        state = own.state(new)
        state[:] = matrix.nothing
        own.by_unit(state)[:, matrix.units] = matrix.mean(shares).numpy()
        if own.model.num_buffers:
            new[state.size :] -= self.aggregate_buffers(matrix.buffers, result, weights).numpy()
        if not np.isfinite(new).all():
            raise TooFewClients("the new model would not be finite")
        self._note(matrix.client_ids, result)
        self._moments, self._steps = state[1:].reshape(-1).copy(), self._steps + 1
        return new

    def resilience(self, honest: Collection[int]) -> dict[str, float]:
        """How far those that were kept are from the honest: one round's terms of definition 1.

        A defence is Adam-Byzantine resilient if their sums over all rounds stay bounded (A-RFRS paper).

        Args:
            honest: ids of the clients that are no attackers.

        Returns:
            ``spread-theta`` and ``spread-m``, ...: sum over kept and honest clients of this round of the
            Euclidean distance between the two; nothing if the round was skipped.
        """
        last = self._last
        if last is None or self.last_round.skipped is not None:
            return {}
        record = self.last_round
        kept = np.isin(last.client_ids, record.clients if record.selected is None else record.selected)
        benign = np.isin(last.client_ids, [*honest])
        sums = {}
        for i, slot in enumerate(("theta", *self.optimizer.slots)):
            away = Rows.of(last.slot(i)).squared_distances
            sums[f"spread-{slot}"] = float(away.sqrt()[kept][:, benign].sum())
        return sums

    def seen(self) -> dict[str, torch.Tensor]:
        """What filters can look at, of this round's clients (`last_round.clients`), where anybody touched it.

        Returns:
            "parameters" and "gradients", both (n, columns); nothing before the first round.
        """
        if self._last is None:
            return {}
        return {"parameters": self._last.seen("parameters"), "gradients": self._last.seen("gradients")}

    # -- state -------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """See `RobustStrategy`; with the moments, and the state of the filter."""
        state = {"moments": self._moments, "steps": np.array(self._steps)}
        if self.filter is not None:
            state.update({f"filter.{name}": value for name, value in self.filter.state_dict().items()})
        return {**super().state_dict(), **state}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """See `RobustStrategy`."""
        super().load_state_dict(state)
        self._moments, self._steps = np.array(state["moments"]), int(state["steps"])
        if self.filter is not None:
            own = {k.removeprefix("filter."): v for k, v in state.items() if k.startswith("filter.")}
            self.filter.load_state_dict(own)


def make_filter(name: str, num_byzantine: NumByzantine) -> RobustStrategy:
    """Make the rule of this name, told of f if it asks for it.

    Raises:
        ValueError: there is no such rule.
    """
    from byzflower.strategies import STRATEGIES  # which names this module's classes, too

    rules = {key: rule for key, rule in STRATEGIES.items() if not issubclass(rule, MomentsStrategy)}
    if name not in rules:
        raise ValueError(f"unknown filter {name!r} (known: {', '.join(sorted(rules))})")
    rule: Any = rules[name]
    asks = "num_byzantine" in inspect.signature(rule.__init__).parameters
    made: RobustStrategy = rule(num_byzantine=num_byzantine) if asks else rule()
    return made


class ARFRS(MomentsStrategy):
    """Filters on the gradients recovered from clients' Adam moments, then averages all of it (A-RFRS)."""

    def __init__(
        self,
        num_byzantine: NumByzantine = 0,
        filter: str | RobustStrategy | None = "multikrum",
        inspect: Inspect = "gradients",
        tolerance: float = 1e-4,
        lr: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        **options: Unpack[StrategyOptions],
    ) -> None:
        """Make the strategy.

        Args:
            num_byzantine: f, or the fraction of the clients that replied.
            filter: rule that decides who is kept; None for the paper's A-FRS.
            inspect: "gradients", or "parameters" for the paper's baselines.
            tolerance: of the update rule, relative.
            lr: eta.
            beta1: of the first moment.
            beta2: of the second moment.
            eps: under the root.
            options: see `RobustStrategy`.
        """
        optimizer = Adam(lr=lr, beta1=beta1, beta2=beta2, eps=eps)
        super().__init__(optimizer, num_byzantine, filter, inspect, tolerance, **options)


class SRFRS(MomentsStrategy):
    """A-RFRS's sibling for clients that use SGD with momentum (S-RFRS)."""

    def __init__(
        self,
        num_byzantine: NumByzantine = 0,
        filter: str | RobustStrategy | None = "multikrum",
        inspect: Inspect = "gradients",
        tolerance: float = 1e-4,
        lr: float = 0.01,
        momentum: float = 0.9,
        **options: Unpack[StrategyOptions],
    ) -> None:
        """Make the strategy.

        Args:
            num_byzantine: f, or the fraction of the clients that replied.
            filter: rule that decides who is kept; None keeps all.
            inspect: "gradients" or "parameters".
            tolerance: of the update rule, relative.
            lr: eta.
            momentum: b3; 0 is plain SGD.
            options: see `RobustStrategy`.
        """
        optimizer = MomentumSGD(lr=lr, momentum=momentum)
        super().__init__(optimizer, num_byzantine, filter, inspect, tolerance, **options)


class AGRFRS(MomentsStrategy):
    """A-RFRS's sibling for clients that use AdaGrad (AG-RFRS)."""

    def __init__(
        self,
        num_byzantine: NumByzantine = 0,
        filter: str | RobustStrategy | None = "multikrum",
        inspect: Inspect = "gradients",
        tolerance: float = 1e-4,
        lr: float = 0.01,
        eps: float = 1e-8,
        **options: Unpack[StrategyOptions],
    ) -> None:
        """Make the strategy.

        Args:
            num_byzantine: f, or the fraction of the clients that replied.
            filter: rule that decides who is kept; None keeps all.
            inspect: "gradients" or "parameters".
            tolerance: of the update rule, relative.
            lr: eta.
            eps: beside the root.
            options: see `RobustStrategy`.
        """
        super().__init__(AdaGrad(lr=lr, eps=eps), num_byzantine, filter, inspect, tolerance, **options)


class RRFRS(MomentsStrategy):
    """A-RFRS's sibling for clients that use RMSProp (R-RFRS)."""

    def __init__(
        self,
        num_byzantine: NumByzantine = 0,
        filter: str | RobustStrategy | None = "multikrum",
        inspect: Inspect = "gradients",
        tolerance: float = 1e-4,
        lr: float = 1e-3,
        decay: float = 0.9,
        eps: float = 1e-8,
        **options: Unpack[StrategyOptions],
    ) -> None:
        """Make the strategy.

        Args:
            num_byzantine: f, or the fraction of the clients that replied.
            filter: rule that decides who is kept; None keeps all.
            inspect: "gradients" or "parameters".
            tolerance: of the update rule, relative.
            lr: eta.
            decay: b4.
            eps: under the root.
            options: see `RobustStrategy`.
        """
        optimizer = RMSProp(lr=lr, decay=decay, eps=eps)
        super().__init__(optimizer, num_byzantine, filter, inspect, tolerance, **options)
