"""Camouflage: another gradient that Adam turns into the very same model."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from byzflower.attacks.base import LocalAttack, LocalView, Need

# How exactly a camouflaged coordinate must repeat the benign step, relative to it.
_SAME_STEP = 1e-6


def camouflage(
    gradient: torch.Tensor, m: torch.Tensor, v: torch.Tensor, beta1: float, beta2: float, eps: float
) -> torch.Tensor:
    """Replace every coordinate of a gradient that has a twin by the twin (A-RFRS, equation 8).

    Adam's step (b1 m + (1-b1) g) / sqrt(b2 v + (1-b2) g^2 + eps) takes most values at two g. The other
    one solves the squared equation, so it may also be of the opposite step, or not be there at all
    (denominator near 0). Only what repeats the step, after rounding to the gradient's type, is taken;
    elsewhere the gradient stays. With two solutions, the farthest one from g is the one that is not g.
    The paper leaves eps out; here it is part of b2 v, which makes the equation exact.

    Args:
        gradient: (d,) g.
        m: (d,) first moment that the server broadcast.
        v: (d,) second moment that the server broadcast.
        beta1: b1.
        beta2: b2.
        eps: under the root.
    """
    g, m, v = gradient.double(), m.double(), beta2 * v.double() + eps
    a, b = beta1 * m, 1 - beta1
    weight = (1 - beta2) * a * a - b * b * v
    twin = (2 * a * b * v - weight * g) / (weight + 2 * a * b * (1 - beta2) * g)
    twin = twin.to(gradient.dtype)

    def step(x: torch.Tensor) -> torch.Tensor:
        return (a + b * x) / (v + (1 - beta2) * x * x).sqrt()

    own, others = step(g), step(twin.double())
    same = (others - own).abs() <= _SAME_STEP * own.abs()  # False where the twin is NaN or infinite
    return torch.where(same, twin, gradient)


@dataclass(frozen=True, kw_only=True)
class Camouflage(LocalAttack):
    """Byzantine clients upload the benign model with moments of another gradient.

    Where it succeeds, looking at models alone finds nothing; the moments that it poisons mislead later
    steps. Its share of the coordinates is small where moments and gradients are of one size.

    Attributes:
        beta1: of the server's Adam.
        beta2: of the server's Adam.
        eps: of the server's Adam, under the root.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    needs: ClassVar[frozenset[Need]] = frozenset({Need.ADAM})

    def __post_init__(self) -> None:
        """Check the parameters.

        Raises:
            ValueError: a decay rate outside (0, 1), or eps negative.
        """
        super().__post_init__()
        for name in ("beta1", "beta2"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be in (0, 1), got {getattr(self, name)}")
        if not self.eps >= 0:
            raise ValueError(f"eps must not be negative, got {self.eps}")

    def corrupt(self, view: LocalView) -> torch.Tensor:
        """Apply `camouflage`.

        Raises:
            ValueError: the server does not broadcast Adam's two moments.
        """
        if len(view.moments) != 2:
            raise ValueError(f"camouflage needs Adam's 2 moments (strategy arfrs), got {len(view.moments)}")
        m, v = view.moments
        return camouflage(view.gradient, m, v, self.beta1, self.beta2, self.eps)
