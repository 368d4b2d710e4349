"""The scaled opposite of the benign mean, as the Spattack paper sets up Fang's attack."""

from dataclasses import dataclass

import torch

from byzflower.attacks.base import AttackView, CollusiveAttack, repeat
from byzflower.attacks.ipm import ipm


@dataclass(frozen=True, kw_only=True)
class FangScale(CollusiveAttack):
    """Byzantine clients upload -r mu, with r drawn anew each round.

    Attributes:
        low: least r.
        high: greatest r; [3, 4] in the Spattack paper.
    """

    low: float = 3.0
    high: float = 4.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        if not self.low <= self.high:
            raise ValueError(f"low <= high is needed, got low={self.low}, high={self.high}")

    def craft(self, view: AttackView) -> torch.Tensor:
        """Apply `ipm` with the drawn factor, the same for all attackers."""
        share = float(torch.rand((), generator=view.generator, device=view.generator.device))
        return repeat(ipm(view.benign, self.low + share * (self.high - self.low)), view.num_byzantine)
