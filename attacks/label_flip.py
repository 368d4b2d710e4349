"""Label flipping: train on wrong labels."""

from dataclasses import dataclass

import torch

from byzflower.attacks.base import DataAttack


def flip_labels(labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Map every label y to L - 1 - y, with L classes (setting of the ROP and SafeSparse papers)."""
    return num_classes - 1 - labels


@dataclass(frozen=True, kw_only=True)
class LabelFlip(DataAttack):
    """Byzantine clients train on labels L - 1 - y."""

    def poison(
        self, features: torch.Tensor, labels: torch.Tensor, num_classes: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Apply `flip_labels`."""
        return features, flip_labels(labels, num_classes)
