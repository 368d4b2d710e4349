"""Min-Max: as far as possible, but within the largest distance of two benign updates of each."""

from dataclasses import dataclass

import torch

from byzflower.attacks.base import AttackView, CollusiveAttack, repeat
from byzflower.attacks.hiding import largest_step
from byzflower.numerics.reductions import gram, mean_and_std, squared_distances


def min_max(benign: torch.Tensor) -> torch.Tensor:
    """Return mu - gamma sigma with the largest allowed gamma (Shejwalkar and Houmansadr, 2021).

    max_i ||g - B_i|| <= max_ij ||B_i - B_j||; gamma is exact, where the paper bisects. A lone benign
    client, or equal ones, are copied.

    Args:
        benign: (m, d) benign pseudo-gradients; sigma is their unbiased standard deviation.

    Returns:
        (d,) the upload.
    """
    m = len(benign)
    mu, sigma = mean_and_std(benign)
    inner = gram(benign, sigma, origin=mu)
    rows = inner[:m, :m]
    slack = squared_distances(rows).max() - rows.diagonal()
    gamma = largest_step(float(inner[m, m]), -inner[m, :m], slack)
    return mu.sub_(sigma, alpha=gamma)


@dataclass(frozen=True, kw_only=True)
class MinMax(CollusiveAttack):
    """Byzantine clients upload mu - gamma sigma, within the largest distance of two benign updates."""

    def craft(self, view: AttackView) -> torch.Tensor:
        """Apply `min_max`."""
        return repeat(min_max(view.benign), view.num_byzantine)
