"""A-RFRS and its siblings: filter clients by the gradients that their optimizers' moments give away."""

import inspect
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Unpack

import numpy as np
import torch
from flwr.common import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.server import Grid
from numpy.typing import NDArray

from byzflower.flower.compat import array_record, array_view
from byzflower.numerics.rows import Rows, TooFewClients
from byzflower.strategies.base import RobustStrategy, StrategyOptions
from byzflower.strategies.result import AggregationResult, NumByzantine, capped_weights, check, uniform_over
from byzflower.strategies.stack import Stacked
from byzflower.uploads.base import Rejection, Upload, among
from byzflower.uploads.layout import Layout
from byzflower.uploads.moments import MomentsLayout, MomentsUpload, moments_layout
from byzflower.uploads.optimizers import AdaGrad, Adam, MomentumSGD, Optimizer, RMSProp

Inspect = Literal["gradients", "parameters"]


@dataclass
class MomentsRound(Stacked):
    """Moments uploads, those left out that broke the update rule.

    Where nobody touched anything all clients are alike, with gradient 0 and the parameters that it
    leads to; nothing here is as large as the model, but `rest`.

    Attributes:
        upload: the clients, each with the rows that it touched.
        units: units of the state (see `MomentsLayout.unit`) that anybody touched, ascending.
        places: place among `units` of each of the upload's.
        recovered: (units of the upload, unit) the gradients that led to its values.
        rest: (depth, all units, unit) state of a client that touched nothing.
        old_buffers: (num_buffers,) that were broadcast.
        inspect: what the filter looks at.
    """

    upload: MomentsUpload
    units: torch.Tensor
    places: torch.Tensor
    recovered: torch.Tensor
    rest: torch.Tensor
    old_buffers: NDArray[Any]
    inspect: Inspect

    @property
    def values(self) -> torch.Tensor:
        """(depth, units of the upload, unit) parameters and moments that were uploaded."""
        return torch.from_numpy(self.upload.values).view(len(self.rest), -1, self.rest.shape[2])

    @property
    def owners(self) -> torch.Tensor:
        """Position of the client of each of the upload's units."""
        counts = torch.from_numpy(np.diff(self.upload.offsets) // self.rest.shape[2])
        return torch.arange(len(counts)).repeat_interleave(counts)

    def gradients(self, device: torch.device) -> torch.Tensor:
        """What the filter sees: (n, columns that anybody touched)."""
        return self.seen(self.inspect).to(device)

    def seen(self, what: Inspect) -> torch.Tensor:
        """The clients' gradients or parameters: (n, columns that anybody touched)."""
        rest = self.rest[0, self.units]
        if what == "parameters":
            return self.spread_out(rest, self.values[0])
        return self.spread_out(torch.zeros_like(rest), self.recovered)

    def spread_out(self, untouched: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """One row for each client of the upload's values, with those `untouched` where it has none.

        Args:
            untouched: (units, unit).
            values: (units of the upload, unit).

        Returns:
            (n, columns that anybody touched).
        """
        rows = untouched.repeat(len(self.upload), 1, 1)
        rows[self.owners, self.places] = values
        return rows.view(len(rows), -1)

    @property
    def buffers(self) -> torch.Tensor:
        """See `Stacked`."""
        return torch.from_numpy(self.old_buffers - self.upload.buffers)

    def mean(self, shares: torch.Tensor) -> torch.Tensor:
        """Weighted mean of the clients' states where anybody touched them: (depth, units, unit).

        The sum of how far they are from `rest`, in float64 and always in the order of the clients.
        """
        share = shares.double()[self.owners]
        counted = share != 0
        used = self.places[counted]
        rest = self.rest[:, self.units].double()
        change = (self.values[:, counted] - rest[:, used]).mul_(share[counted, None])
        return rest.index_add(1, used, change)


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

    def _stack(self, uploads: Sequence[Upload], layout: Layout) -> MomentsRound:
        """Recover the gradients and verify the update rule; work and memory grow with touched rows."""
        own, t = moments_layout(layout), self._steps + 1
        before = torch.from_numpy(own.by_unit(own.state(self._global)))
        rest = self.optimizer.step(before, torch.zeros(()), t)
        known = [upload for upload in uploads if isinstance(upload, MomentsUpload)]
        upload = MomentsUpload.concatenate([MomentsUpload.empty(own), *known])
        upload = upload.take(sorted(range(len(upload)), key=upload.client_ids.__getitem__))
        upload = upload.without_untouched(rest.view(own.depth, -1).numpy(), own)
        units = torch.from_numpy(own.units(upload.touched))
        after, start = torch.from_numpy(own.by_unit(upload.values)), before[:, units]
        gradients = self.optimizer.recover(start, after)
        obeyed = self.optimizer.obeyed(start, after, t, self.tolerance)
        obeyed &= gradients.isfinite()
        faults = {} if obeyed.all() else _faults(upload, obeyed.view(-1).numpy(), self.optimizer.name)
        rejections = [Rejection(upload.client_ids[i], fault) for i, fault in faults.items()]
        if faults:
            counts = torch.from_numpy(np.diff(upload.offsets) // own.unit)
            good = torch.tensor([i not in faults for i in range(len(upload))]).repeat_interleave(counts)
            upload = upload.take([i for i in range(len(upload)) if i not in faults])
            units, gradients = units[good], gradients[good]
        union, places = torch.unique(units, return_inverse=True)
        buffers = self._global[own.depth * own.model.d :]
        return MomentsRound(
            upload.client_ids,
            upload.num_examples,
            rejections,
            len(union) * own.unit,
            upload,
            union,
            places,
            gradients,
            rest,
            buffers,
            self.inspect,
        )

    def _step(self, matrix: MomentsRound, layout: Layout) -> NDArray[Any]:
        own, self._last = moments_layout(layout), matrix
        if len(matrix.client_ids) == 0:
            raise TooFewClients("no usable upload arrived")
        weights = capped_weights(torch.from_numpy(matrix.num_examples), self.max_client_weight)
        result = self.apply(matrix.gradients(self.device), weights.to(self.device))
        share = result.weights if result.selected is None else uniform_over(result.selected.cpu(), weights)
        shares = weights if share is None else share.cpu()
        new = self._global.copy()
        state = own.state(new)
        state[:] = matrix.rest.view(own.depth, -1).numpy()
        own.by_unit(state)[:, matrix.units.numpy()] = matrix.mean(shares).numpy()
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
        kept = among(last.client_ids, record.clients if record.selected is None else record.selected)
        benign = among(last.client_ids, honest)
        sums = {}
        for i, slot in enumerate(("theta", *self.optimizer.slots)):
            away = Rows.of(last.spread_out(last.rest[i, last.units], last.values[i])).squared_distances
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
    """Make the rule of this name, told of f if it asks for it; "rfa" is eight steps of the geometric median.

    Raises:
        ValueError: there is no such rule.
    """
    from byzflower.strategies import STRATEGIES  # which names this module's classes, too

    rules: dict[str, Any] = {k: r for k, r in STRATEGIES.items() if not issubclass(r, MomentsStrategy)}
    rules["rfa"] = partial(rules["geometricmedian"], iterations=8)
    if name not in rules:
        raise ValueError(f"unknown filter {name!r} (known: {', '.join(sorted(rules))})")
    rule = rules[name]
    asks = "num_byzantine" in inspect.signature(rule).parameters
    made: RobustStrategy = rule(num_byzantine=num_byzantine) if asks else rule()
    return made


def _faults(upload: MomentsUpload, obeyed: NDArray[np.bool_], name: str) -> dict[int, str]:
    """Positions of the clients of which not every coordinate is obeyed, and the reason to name."""
    broken = np.flatnonzero(~obeyed)
    clients, counts = np.unique(np.searchsorted(upload.offsets, broken, side="right") - 1, return_counts=True)
    return {
        int(i): f"breaks the update rule of {name} in {count} of {upload.offsets[i + 1] - upload.offsets[i]}"
        " coordinates"
        for i, count in zip(clients, counts, strict=True)
    }


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
