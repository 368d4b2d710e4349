"""Infinite and undefined uploads: a crash test of the protocol rather than of a rule."""

from dataclasses import dataclass

import torch

from byzflower.attacks.base import LocalAttack, LocalView


@dataclass(frozen=True, kw_only=True)
class Inf(LocalAttack):
    """Byzantine clients upload infinity in every coordinate."""

    def corrupt(self, view: LocalView) -> torch.Tensor:
        """Return (d,) infinities."""
        return torch.full_like(view.gradient, torch.inf)


@dataclass(frozen=True, kw_only=True)
class NaN(LocalAttack):
    """Byzantine clients upload NaN in every coordinate."""

    def corrupt(self, view: LocalView) -> torch.Tensor:
        """Return (d,) NaNs."""
        return torch.full_like(view.gradient, torch.nan)
