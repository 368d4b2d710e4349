"""Neurotoxin: train on what the others hardly move, so that they hardly undo it."""

import math
from dataclasses import dataclass

import torch

from byzflower.attacks.training import TrainingAttack, TrainingView

_BROADCAST = "broadcast"


def least_moved(change: torch.Tensor, masked: float) -> torch.Tensor:
    """Return which of d coordinates are not among the ceil(masked d) that changed most.

    Args:
        change: (d,) what was aggregated.
        masked: share of the coordinates, in [0, 1).

    Returns:
        Boolean (d,), at least one True.
    """
    count = min(math.ceil(masked * len(change) - 1e-9), len(change) - 1)
    kept = torch.ones(len(change), dtype=torch.bool, device=change.device)
    kept[change.abs().argsort(descending=True, stable=True)[:count]] = False
    return kept


@dataclass(frozen=True, kw_only=True)
class Neurotoxin(TrainingAttack):
    """Byzantine clients raise their own loss by moving only what the last aggregate moved least.

    The last aggregate is the difference of the last two broadcasts that the client saw, as in Zhang et al.
    (2022). In the first round of the attack, for want of a second broadcast, it is the gradient of the
    client's own clean data, as in the authors' code at all times. The paper's objective is a backdoor's loss;
    here it is the main task's, ascended.

    Attributes:
        masked: share of the coordinates, those that moved most, that are left alone (the paper: 0.05).
    """

    masked: float = 0.05

    def __post_init__(self) -> None:
        """Check the parameters.

        Raises:
            ValueError: a share outside [0, 1).
        """
        super().__post_init__()
        if not 0 <= self.masked < 1:
            raise ValueError(f"masked must be in [0, 1), got {self.masked}")

    def train(self, view: TrainingView) -> torch.Tensor:
        """Ascend on the coordinates that are left, and keep the broadcast for the next round."""
        last = view.memory.get(_BROADCAST)
        view.memory[_BROADCAST] = view.model
        kept = least_moved(_own_gradient(view) if last is None else last - view.model, self.masked)
        return view.fit(view.batches(), alter=torch.neg, project=lambda learned: learned * kept)


def _own_gradient(view: TrainingView) -> torch.Tensor:
    """The (d,) gradient of the client's clean data at the broadcast model, summed over its batches."""
    total = torch.zeros_like(view.model)
    for batch in view.batches():
        total += view.gradient(view.model, batch)
    return total
