"""Bit flipping (sign flipping): upload the opposite of the benign update."""

from dataclasses import dataclass

import torch

from byzflower.attacks.base import LocalAttack, LocalView


def bit_flip(gradient: torch.Tensor) -> torch.Tensor:
    """Return -g (Allen-Zhu et al., 2020)."""
    return -gradient


@dataclass(frozen=True, kw_only=True)
class BitFlip(LocalAttack):
    """Byzantine clients upload the negative of the update that they would have sent."""

    def corrupt(self, view: LocalView) -> torch.Tensor:
        """Apply `bit_flip`."""
        return bit_flip(view.gradient)
