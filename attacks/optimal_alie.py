"""ALIE with the strength that hurts the server's own rule most."""

from dataclasses import dataclass

import torch

from byzflower.attacks.base import AttackView, CollusiveAttack
from byzflower.attacks.line_search import most_harmful
from byzflower.numerics.reductions import mean_and_std


@dataclass(frozen=True, kw_only=True)
class OptimalALIE(CollusiveAttack):
    """Byzantine clients upload mu - z sigma, with the z that drives the server's own rule farthest from mu.

    Attributes:
        evaluations: how often the rule is tried each round, at least 1 (ByzFL's experiments: 20).
        sign: -1 or +1, as in ALIE.
    """

    evaluations: int = 20
    sign: int = -1

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        if self.evaluations < 1:
            raise ValueError(f"evaluations must be at least 1, got {self.evaluations}")
        if self.sign not in (-1, 1):
            raise ValueError(f"sign must be -1 or 1, got {self.sign}")

    def craft(self, view: AttackView) -> torch.Tensor:
        """Search z.

        Raises:
            ValueError: the server's rule is not known.
        """
        mu, sigma = mean_and_std(view.benign)
        return most_harmful(view, mu, lambda z: mu.add(sigma, alpha=self.sign * z), self.evaluations)
