"""Projected gradient ascent: as much loss as a small distance from the broadcast model allows."""

from dataclasses import dataclass
from functools import partial

import torch

from byzflower.attacks.training import TrainingAttack, TrainingView


def into_ball(gradient: torch.Tensor, radius: float) -> torch.Tensor:
    """Return the nearest vector to a (d,) one whose Euclidean norm is at most `radius`; itself if it is."""
    norm = float(torch.linalg.vector_norm(gradient, dtype=torch.float64))
    return gradient if norm <= radius else gradient * (radius / norm)


@dataclass(frozen=True, kw_only=True)
class PGD(TrainingAttack):
    """Byzantine clients raise their own loss, within a ball around the broadcast model.

    After every local step the model is projected onto the ball, which passes defences that bound norms (Sun
    et al., 2019). Wang et al. (2020) do so with a backdoor's loss, and project less often in their code;
    ascending the loss of the main task is Shejwalkar et al.'s (2022) untargeted variant. With `factor` it
    is constrain-and-scale.

    Attributes:
        radius: of the ball, positive. The papers tune it to the defence's bound; 1 is the project's choice.
        factor: that the projected pseudo-gradient is multiplied by before it is uploaded.
    """

    radius: float = 1.0
    factor: float = 1.0

    def __post_init__(self) -> None:
        """Check the parameters.

        Raises:
            ValueError: a radius that is not positive.
        """
        super().__post_init__()
        if not self.radius > 0:
            raise ValueError(f"radius must be positive, got {self.radius}")

    def train(self, view: TrainingView) -> torch.Tensor:
        """Ascend, projected after every step."""
        inside = partial(into_ball, radius=self.radius)
        return view.fit(view.batches(), alter=torch.neg, project=inside) * self.factor
