"""Gaussian baseline: uploads drawn from the distribution of the benign ones."""

from dataclasses import dataclass

import torch

from byzflower.attacks.base import AttackView, CollusiveAttack, gaussian
from byzflower.numerics.reductions import mean_and_std


@dataclass(frozen=True, kw_only=True)
class Gaussian(CollusiveAttack):
    """Byzantine clients draw their uploads from the Gaussian fitted to each coordinate of the benign ones.

    A baseline of the Spattack paper (after Fang et al., 2020); every attacker draws for itself.
    """

    def craft(self, view: AttackView) -> torch.Tensor:
        """Draw (f, d) from N(mu, sigma^2), sigma unbiased (0 for one benign row)."""
        mu, sigma = mean_and_std(view.benign)
        return gaussian(mu, sigma, view.generator, view.num_byzantine)
