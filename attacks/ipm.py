"""Inner product manipulation: pull the aggregate against the true direction."""

from dataclasses import dataclass

import torch

from byzflower.attacks.base import AttackView, CollusiveAttack, repeat
from byzflower.numerics.reductions import mean


def ipm(benign: torch.Tensor, eps: float) -> torch.Tensor:
    """Return -eps * mu, mu the mean of the (m, d) benign pseudo-gradients (Xie et al., 2020)."""
    return mean(benign).mul_(-eps)


@dataclass(frozen=True, kw_only=True)
class IPM(CollusiveAttack):
    """Byzantine clients upload -eps times the benign mean.

    Attributes:
        eps: 0.1 (STRIKE) or 0.2 (ROP); above (n-f)/f a plain mean walks uphill.
    """

    eps: float = 0.1

    def craft(self, view: AttackView) -> torch.Tensor:
        """Apply `ipm`."""
        return repeat(ipm(view.benign, self.eps), view.num_byzantine)
