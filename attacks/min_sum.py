"""Min-Sum: as far as possible, but with a sum of distances to benign updates that one of them has, too."""

import math
from dataclasses import dataclass
from typing import Literal

import torch

from byzflower.attacks.base import AttackView, CollusiveAttack, repeat
from byzflower.numerics.reductions import mean_and_std, squared_norms


def min_sum(benign: torch.Tensor, bound: Literal["max", "min"] = "max") -> torch.Tensor:
    """Return mu - gamma sigma with the largest allowed gamma (Shejwalkar and Houmansadr, 2021).

    sum_i ||g - B_i||^2 <= max_i sum_j ||B_i - B_j||^2. Relative to the mean, the left side is
    m gamma^2 ||sigma||^2 + sum_j ||B_j - mu||^2 and the right one
    m max_i ||B_i - mu||^2 + sum_j ||B_j - mu||^2: gamma = max_i ||B_i - mu|| / ||sigma||.

    Args:
        benign: (m, d) benign pseudo-gradients; sigma is their unbiased standard deviation.
        bound: "max" as above, or "min" for the least of the sums: implementations disagree.

    Returns:
        (d,) the upload.
    """
    mu, sigma = mean_and_std(benign)
    spread = float(squared_norms(sigma[None]))
    distances = squared_norms(benign, origin=mu)
    limit = float(distances.max() if bound == "max" else distances.min())
    return mu.sub_(sigma, alpha=math.sqrt(limit / spread) if spread > 0 else 0.0)


@dataclass(frozen=True, kw_only=True)
class MinSum(CollusiveAttack):
    """Byzantine clients upload mu - gamma sigma, within the largest sum of distances to benign updates.

    Attributes:
        bound: "max" over the benign clients' sums of squared distances (the default), or "min".
    """

    bound: Literal["max", "min"] = "max"

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        if self.bound not in ("max", "min"):
            raise ValueError(f"bound must be max or min, got {self.bound!r}")

    def craft(self, view: AttackView) -> torch.Tensor:
        """Apply `min_sum`."""
        return repeat(min_sum(view.benign, self.bound), view.num_byzantine)
