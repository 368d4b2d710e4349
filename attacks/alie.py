"""A Little Is Enough: hide within the standard deviation of the benign updates."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch

from byzflower.attacks.base import AttackView, CollusiveAttack, repeat
from byzflower.numerics.reductions import mean_and_std


def alie(benign: torch.Tensor, z: float, sign: int = -1) -> torch.Tensor:
    """Return mu + sign * z * sigma per coordinate (Baruch et al., 2019).

    Args:
        benign: (m, d) benign pseudo-gradients; sigma is their unbiased standard deviation (0 if m = 1).
        z: how many standard deviations.
        sign: -1 as in ROP's equation 4 (the default); some implementations add.
    """
    mu, sigma = mean_and_std(benign)
    return mu.add_(sigma, alpha=sign * z)


def largest_hidden_z(num_clients: int, num_byzantine: int) -> float:
    """Return z = Phi^-1((n - f - s) / (n - f)) with s = floor(n/2 + 1) - f supporters needed for a majority.

    Raises:
        ValueError: the formula has no finite value, i.e. f outside 1 <= f <= n/2 or so.
    """
    n, f = num_clients, num_byzantine
    supporters = math.floor(n / 2 + 1) - f
    share = (n - f - supporters) / (n - f) if n > f else 1.0
    if not 0 < share < 1:
        raise ValueError(
            f"ALIE's formula needs 0 < (n-f-s)/(n-f) < 1, got {share:.3g} for n={n}, f={f}; set z"
        )
    return NormalDist().inv_cdf(share)


@dataclass(frozen=True, kw_only=True)
class ALIE(CollusiveAttack):
    """Byzantine clients upload mu - z sigma, within the benign updates' deviations (also known as LIE).

    Attributes:
        z: standard deviations from the mean; None for the formula of `largest_hidden_z`. The papers
            use 1.5 (STRIKE), 0.1 (Spattack) and the formula (ROP).
        sign: -1 or +1.
        alternate: flip the sign in every other round, so that nothing accumulates over time (ROP,
            equation 19: the attack that it shows to be harmless).
    """

    z: float | None = 1.5
    sign: int = -1
    alternate: bool = False

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        if self.sign not in (-1, 1):
            raise ValueError(f"sign must be -1 or 1, got {self.sign}")

    def craft(self, view: AttackView) -> torch.Tensor:
        """Apply `alie`."""
        z = largest_hidden_z(view.num_clients, view.num_byzantine) if self.z is None else self.z
        sign = -self.sign if self.alternate and view.round % 2 else self.sign
        return repeat(alie(view.benign, z, sign), view.num_byzantine)
