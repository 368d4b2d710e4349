"""Fang's attack on the trimmed mean: just beyond the benign extremes, on the wrong side."""

from dataclasses import dataclass

import torch

from byzflower.attacks.base import AttackView, CollusiveAttack
from byzflower.numerics.reductions import mean


def fang_trimmed_mean(
    benign: torch.Tensor, num_byzantine: int, b: float, generator: torch.Generator
) -> torch.Tensor:
    """Go beyond the benign extreme against sign(mu), by a factor from [1, b] (Fang et al., 2020).

    Where mu > 0 that is below the least benign value, elsewhere above the greatest: multiplied by the
    factor if this leads away from the benign values, else divided.

    Args:
        benign: (m, d) benign pseudo-gradients, mu their mean.
        num_byzantine: f; every attacker draws its own factor for each coordinate.
        b: at least 1.
        generator: of the factors.

    Returns:
        (f, d) uploads.
    """
    positive = mean(benign) > 0
    extreme = torch.where(positive, benign.amin(dim=0), benign.amax(dim=0))
    outward = (extreme > 0) != positive  # multiplying leads away from the benign values
    factors = torch.rand(
        num_byzantine, len(extreme), dtype=benign.dtype, device=generator.device, generator=generator
    ).to(benign.device)
    for row in factors:
        row.mul_(b - 1).add_(1)
        row.copy_(extreme * torch.where(outward, row, 1 / row))
    return factors


@dataclass(frozen=True, kw_only=True)
class FangTrimmedMean(CollusiveAttack):
    """Byzantine clients upload values just beyond the benign extremes, against the benign direction.

    Attributes:
        b: greatest factor, at least 1; the paper's 2.
    """

    b: float = 2.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        if not self.b >= 1:
            raise ValueError(f"b must be at least 1, got {self.b}")

    def craft(self, view: AttackView) -> torch.Tensor:
        """Apply `fang_trimmed_mean`."""
        return fang_trimmed_mean(view.benign, view.num_byzantine, self.b, view.generator)
