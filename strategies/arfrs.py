"""A-RFRS and its siblings: a rule selects clients by gradients recovered from their optimizer's moments."""

import inspect as signatures
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Unpack

import torch
from numpy.typing import NDArray

from byzflower.numerics.rows import Rows
from byzflower.strategies.base import RobustStrategy
from byzflower.strategies.options import StrategyOptions
from byzflower.strategies.result import AggregationResult, NumByzantine, check, count_byzantine
from byzflower.uploads.moments import Moments
from byzflower.uploads.moments_round import Inspect
from byzflower.uploads.optimizers import AdaGrad, Adam, MomentumSGD, Optimizer, RMSProp

Filter = str | RobustStrategy | Callable[..., AggregationResult] | None


class MomentsStrategy(RobustStrategy):
    """Base of strategies whose clients take one optimizer step from the server's moments.

    It is composed of `Moments` uploads and a rule. The rule decides who is kept, or weighs the clients;
    parameters and moments of those are averaged, each separately, in proportion to num-examples.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        num_byzantine: NumByzantine,
        filter: Filter,
        inspect: Inspect,
        tolerance: float,
        **options: Unpack[StrategyOptions],
    ) -> None:
        """Make the strategy.

        Args:
            optimizer: whose step the clients take.
            num_byzantine: f, or the fraction of the clients that replied.
            filter: the rule: its name, a strategy, or a plain function as `multi_krum`; None keeps all.
                Rules that select (Multi-Krum, MDA, DnC, ...) name the clients to keep; rules that only
                weight (the geometric median) give the weights of the averages.
            inspect: what the rule sees: recovered "gradients", or the "parameters" as uploaded.
            tolerance: of the update rule; see `Optimizer.obeyed`.
            options: see `RobustStrategy`. `upload` and `server_lr` keep their defaults: clients upload
                models, and the step is the clients'.

        Raises:
            ValueError: an option out of its range.
        """
        given = options.get("upload", "weights")
        check(given == "weights", "moments travel with weights: upload must be weights", given)
        server_lr = options.get("server_lr", 1.0)
        check(server_lr == 1, "the clients take the step: server_lr must be 1", server_lr)
        for name in ("pack_size", "densify"):  # of another kind of upload
            options.pop(name, None)  # type: ignore[misc]
        options["upload"] = Moments(optimizer, inspect, tolerance)
        super().__init__(**options)
        self.num_byzantine = num_byzantine
        self.filter = make_filter(filter, num_byzantine)

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply the rule to the gradients or parameters.

        Raises:
            ValueError: the filter neither selects nor weights clients.
        """
        if self.filter is None:
            return AggregationResult(gradients.combine(weights), weights=weights)
        self.filter.follow(self)
        result = self.filter.aggregate(gradients, weights)
        if result.selected is None and result.weights is None:
            raise ValueError(f"filter {type(self.filter).__name__} neither selects nor weights clients")
        return result

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """With the state of the filter."""
        own = {} if self.filter is None else self.filter.state_dict()
        return {**super().state_dict(), **{f"filter.{name}": value for name, value in own.items()}}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what `state_dict` gave."""
        super().load_state_dict(state)
        if self.filter is not None:
            own = {k.removeprefix("filter."): v for k, v in state.items() if k.startswith("filter.")}
            self.filter.load_state_dict(own)


class _Plain(RobustStrategy):
    """A rule that is a function of rows, and of f if it asks for it."""

    def __init__(self, rule: Callable[..., AggregationResult], num_byzantine: NumByzantine) -> None:
        super().__init__()
        self.rule = rule
        self.num_byzantine = num_byzantine

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Call the function."""
        parameters = signatures.signature(self.rule).parameters
        asks = {"num_byzantine": count_byzantine(self.num_byzantine or 0, gradients.num_clients)}
        return self.rule(gradients, **{name: value for name, value in asks.items() if name in parameters})


def make_filter(rule: Filter, num_byzantine: NumByzantine) -> RobustStrategy | None:
    """Make a strategy of a rule, with f if it takes one; "rfa" is eight steps of the geometric median.

    Raises:
        ValueError: there is no rule of this name.
    """
    if rule is None or isinstance(rule, RobustStrategy):
        return rule
    if callable(rule):
        return _Plain(rule, num_byzantine)
    from byzflower.strategies import STRATEGIES  # which names this module's classes, too

    rules: dict[str, Any] = {k: r for k, r in STRATEGIES.items() if not issubclass(r, MomentsStrategy)}
    rules["rfa"] = partial(rules["geometricmedian"], iterations=8)
    if rule not in rules:
        raise ValueError(f"unknown filter {rule!r} (known: {', '.join(sorted(rules))})")
    make = rules[rule]
    asks = "num_byzantine" in signatures.signature(make).parameters
    made: RobustStrategy = make(num_byzantine=num_byzantine) if asks else make()
    return made


class ARFRS(MomentsStrategy):
    """Selects clients by gradients recovered from Adam moments, averages models and moments (A-RFRS)."""

    def __init__(
        self,
        num_byzantine: NumByzantine = 0,
        filter: Filter = "multikrum",
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
        filter: Filter = "multikrum",
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
        filter: Filter = "multikrum",
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
        filter: Filter = "multikrum",
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
