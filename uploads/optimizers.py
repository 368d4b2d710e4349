"""Optimizers whose moments the server keeps: the update step, and how to recover the gradient from it.

Each is elementwise, in single float32 operations: whoever repeats a step gets the same bits.
"""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from typing_extensions import override

OPTIMIZER = "optimizer"
STEP = "optimizer-step"


@dataclass(frozen=True, kw_only=True)
class Optimizer(ABC):
    """One step from the server's parameters and moments, by a client's gradient.

    A state is a tensor (1 + number of slots, ...): the parameters first, then one moment per slot.

    Attributes:
        lr: eta, positive.
    """

    name: ClassVar[str]
    slots: ClassVar[tuple[str, ...]]
    # Below it the square of a float32 gradient is lost where its step is not, and a step has no limit.
    least_eps: ClassVar[float] = torch.finfo(torch.float32).tiny

    lr: float

    def __post_init__(self) -> None:
        """Check the parameters.

        Raises:
            ValueError: `lr` not positive, an epsilon not positive or too small for a float32 gradient's
                square, or a decay rate outside [0, 1).
        """
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in ("lr", "eps"):
                if not (value > 0 and math.isfinite(value)):
                    raise ValueError(f"{field.name} must be positive, got {value}")
                if field.name == "eps" and value < self.least_eps:
                    raise ValueError(f"eps must be at least {self.least_eps:.3g}, got {value}")
            elif not 0 <= value < 1:
                raise ValueError(f"{field.name} must be in [0, 1), got {value}")

    @abstractmethod
    def step(self, before: torch.Tensor, gradient: torch.Tensor | float, t: int) -> torch.Tensor:
        """Return the state after step `t` (from 1) by `gradient`, which has a slot's shape."""

    @abstractmethod
    def recover(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Return the gradient that led from one state to the other; exactly 0 where `step` was given 0."""

    def obeyed(
        self,
        before: torch.Tensor,
        after: torch.Tensor,
        t: int,
        tolerance: float,
        numbers: torch.finfo | None = None,
    ) -> torch.Tensor:
        """Where `after` is what step `t` gives for some gradient.

        Args:
            before: state that the step began with.
            after: state that a client claims.
            t: number of the step, from 1.
            tolerance: error allowed, relative to the change of a value by the step. Some units in the
                last place of the value itself are always allowed.
            numbers: those that the values of `after` were rounded to; by default those of its type.

        Returns:
            Boolean, of a slot's shape; False wherever anything is NaN, infinite or overflows on the way:
            what is not finite would be close to anything.
        """
        return self._obeyed(before, after, t, tolerance, numbers or torch.finfo(after.dtype))

    @abstractmethod
    def _obeyed(
        self, before: torch.Tensor, after: torch.Tensor, t: int, tolerance: float, numbers: torch.finfo
    ) -> torch.Tensor:
        """Where `after` is a step; see `obeyed`."""

    def to_config(self, step: int) -> dict[str, Any]:
        """Everything that a client needs to take step `step`, for a ConfigRecord."""
        return {OPTIMIZER: self.name, STEP: step, **dataclasses.asdict(self)}

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> "tuple[Optimizer, int]":
        """Read what `to_config` wrote: the optimizer, and the number of the step to take.

        Raises:
            ValueError: an optimizer that is not known, or a parameter out of its range.
        """
        name = config[OPTIMIZER]
        if name not in OPTIMIZERS:
            raise ValueError(f"unknown optimizer {name!r:.40} (known: {', '.join(OPTIMIZERS)})")
        kind = OPTIMIZERS[name]
        values = {field.name: float(config[field.name]) for field in dataclasses.fields(kind)}
        return kind(**values), int(config[STEP])

    def replace(self, **changes: float) -> Self:
        """A copy with other parameters."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """Adam as in the A-RFRS paper, equations 2 to 6: epsilon stands under the root.

    m = b1 m' + (1-b1) g, v = b2 v' + (1-b2) g g, theta = theta' - eta_t m / sqrt(v + eps), with
    eta_t = eta sqrt(1-b2^t) / (1-b1^t); primes mark what the server broadcast.

    Attributes:
        beta1: b1 in [0, 1).
        beta2: b2 in [0, 1).
        eps: positive.
    """

    name: ClassVar[str] = "adam"
    slots: ClassVar[tuple[str, ...]] = ("m", "v")

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def rate(self, t: int) -> float:
        """eta_t."""
        return self.lr * math.sqrt(1 - self.beta2**t) / (1 - self.beta1**t)

    @override
    def step(self, before: torch.Tensor, gradient: torch.Tensor | float, t: int) -> torch.Tensor:
        theta, m, v = before
        m = self.beta1 * m + (1 - self.beta1) * gradient
        v = self.beta2 * v + (1 - self.beta2) * (gradient * gradient)
        return torch.stack([theta - self.rate(t) * (m / (v + self.eps).sqrt()), m, v])

    @override
    def recover(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Recovered from m (equation 2)."""
        gradient: torch.Tensor = (after[1] - self.beta1 * before[1]) / (1 - self.beta1)
        return gradient

    @override
    def _obeyed(
        self, before: torch.Tensor, after: torch.Tensor, t: int, tolerance: float, numbers: torch.finfo
    ) -> torch.Tensor:
        """Checks v against g, and theta against m and v."""
        theta, m, v = after
        change = (1 - self.beta2) * self.recover(before, after).square()
        step = self.rate(t) * m / (v + self.eps).sqrt()
        return _close(v, self.beta2 * before[2] + change, change, numbers, tolerance) & _close(
            theta, before[0] - step, step, numbers, tolerance
        )


@dataclass(frozen=True, kw_only=True)
class MomentumSGD(Optimizer):
    """SGD with momentum as in the A-RFRS paper, equation 44: m = b3 m' + g, theta = theta' - eta m.

    Attributes:
        momentum: b3 in [0, 1); 0 is plain SGD.
    """

    name: ClassVar[str] = "sgd"
    slots: ClassVar[tuple[str, ...]] = ("m",)

    lr: float = 0.01
    momentum: float = 0.9

    @override
    def step(self, before: torch.Tensor, gradient: torch.Tensor | float, t: int) -> torch.Tensor:
        theta, m = before
        m = self.momentum * m + gradient
        return torch.stack([theta - self.lr * m, m])

    @override
    def recover(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Recovered from m."""
        gradient: torch.Tensor = after[1] - self.momentum * before[1]
        return gradient

    @override
    def _obeyed(
        self, before: torch.Tensor, after: torch.Tensor, t: int, tolerance: float, numbers: torch.finfo
    ) -> torch.Tensor:
        """Checks theta against m."""
        theta, m = after
        step = self.lr * m
        return _close(theta, before[0] - step, step, numbers, tolerance)


@dataclass(frozen=True, kw_only=True)
class AdaGrad(Optimizer):
    """AdaGrad as in the A-RFRS paper, equation 50: r = r' + g g, theta = theta' - eta g / (sqrt(r) + eps).

    Attributes:
        eps: positive.
    """

    name: ClassVar[str] = "adagrad"
    slots: ClassVar[tuple[str, ...]] = ("r",)
    least_eps: ClassVar[float] = math.sqrt(torch.finfo(torch.float32).tiny)  # it stands beside the root

    lr: float = 0.01
    eps: float = 1e-8

    @override
    def step(self, before: torch.Tensor, gradient: torch.Tensor | float, t: int) -> torch.Tensor:
        theta, r = before
        r = r + gradient * gradient
        return torch.stack([theta - self.lr * (gradient / (r.sqrt() + self.eps)), r])

    @override
    def recover(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Recovered from theta, which has the sign, and from r, where it is more precise."""
        per_step = (after[1].sqrt() + self.eps) / self.lr
        return _sharpest((before[0] - after[0]) * per_step, per_step, after, before[1], 1.0)

    @override
    def _obeyed(
        self, before: torch.Tensor, after: torch.Tensor, t: int, tolerance: float, numbers: torch.finfo
    ) -> torch.Tensor:
        """Checks r against g."""
        per_step = (after[1].sqrt() + self.eps) / self.lr
        g = (before[0] - after[0]) * per_step
        return _square_added(g, per_step, after, before[1], 1.0, tolerance, numbers)


@dataclass(frozen=True, kw_only=True)
class RMSProp(Optimizer):
    """RMSProp as in the A-RFRS paper, equation 78; epsilon stands under the root.

    r = b4 r' + (1-b4) g g, theta = theta' - eta g / sqrt(r + eps).

    Attributes:
        decay: b4 in [0, 1).
        eps: positive.
    """

    name: ClassVar[str] = "rmsprop"
    slots: ClassVar[tuple[str, ...]] = ("r",)

    lr: float = 1e-3
    decay: float = 0.9
    eps: float = 1e-8

    @override
    def step(self, before: torch.Tensor, gradient: torch.Tensor | float, t: int) -> torch.Tensor:
        theta, r = before
        r = self.decay * r + (1 - self.decay) * (gradient * gradient)
        return torch.stack([theta - self.lr * (gradient / (r + self.eps).sqrt()), r])

    @override
    def recover(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Recovered from theta, which has the sign, and from r, where it is more precise."""
        per_step, kept = (after[1] + self.eps).sqrt() / self.lr, self.decay * before[1]
        return _sharpest((before[0] - after[0]) * per_step, per_step, after, kept, 1 - self.decay)

    @override
    def _obeyed(
        self, before: torch.Tensor, after: torch.Tensor, t: int, tolerance: float, numbers: torch.finfo
    ) -> torch.Tensor:
        """Checks r against g."""
        per_step, kept = (after[1] + self.eps).sqrt() / self.lr, self.decay * before[1]
        g = (before[0] - after[0]) * per_step
        return _square_added(g, per_step, after, kept, 1 - self.decay, tolerance, numbers)


def _sharpest(
    g: torch.Tensor, per_step: torch.Tensor, after: torch.Tensor, kept: torch.Tensor, share: float
) -> torch.Tensor:
    """The gradient that a step shows, with the size that its square shows where rounding hurts that less.

    A size whose sign the step has lost counts as positive: it must not stay unseen.

    Args:
        g: gradient by the step of theta.
        per_step: what a step of 1 says of the gradient, so also what a rounding of theta does.
        after: theta and r.
        kept: what is left of the last r.
        share: of the gradient's square in r.
    """
    size = ((after[1] - kept) / share).clamp(min=0).sqrt()
    square_is_sharper = after[1] < share * size * after[0].abs() * per_step
    return torch.where(square_is_sharper, size.copysign(g), g)


def _square_added(
    g: torch.Tensor,
    per_step: torch.Tensor,
    after: torch.Tensor,
    kept: torch.Tensor,
    share: float,
    tolerance: float,
    numbers: torch.finfo,
) -> torch.Tensor:
    """Where r is what was kept and a share of g g, for a g known up to the rounding of theta."""
    rounding = _roundings(numbers) * after[0].abs() * per_step
    change = share * g * g
    unsure = share * rounding * (2 * g.abs() + rounding)
    return _close(after[1], kept + change, change, numbers, tolerance, unsure)


def _close(
    actual: torch.Tensor,
    expected: torch.Tensor,
    change: torch.Tensor,
    numbers: torch.finfo,
    tolerance: float,
    unsure: torch.Tensor | float = 0.0,
) -> torch.Tensor:
    """Where values agree up to the tolerance and the rounding of the uploaded type, all of it finite."""
    rounding = _roundings(numbers) * expected.abs() + numbers.tiny
    allowed = tolerance * change.abs() + rounding + unsure
    return ((actual - expected).abs() <= allowed) & (allowed < torch.inf)


def _roundings(numbers: torch.finfo) -> float:
    """What a few roundings may change a value by, relative to it."""
    return 4 * numbers.eps


OPTIMIZERS: dict[str, type[Optimizer]] = {kind.name: kind for kind in (Adam, MomentumSGD, AdaGrad, RMSProp)}
