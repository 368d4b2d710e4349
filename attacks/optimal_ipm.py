"""IPM with the strength that hurts the server's own rule most."""

from dataclasses import dataclass

import torch

from byzflower.attacks.base import AttackView, CollusiveAttack
from byzflower.attacks.line_search import most_harmful
from byzflower.numerics.reductions import mean


@dataclass(frozen=True, kw_only=True)
class OptimalIPM(CollusiveAttack):
    """Byzantine clients upload -eps mu, with the eps that drives the server's own rule farthest from mu.

    Attributes:
        evaluations: how often the rule is tried each round, at least 1 (ByzFL's experiments: 20).
    """

    evaluations: int = 20

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        if self.evaluations < 1:
            raise ValueError(f"evaluations must be at least 1, got {self.evaluations}")

    def craft(self, view: AttackView) -> torch.Tensor:
        """Search eps.

        Raises:
            ValueError: the server's rule is not known.
        """
        mu = mean(view.benign)
        return most_harmful(view, mu, lambda eps: mu.mul(-eps), self.evaluations)
