"""Scaling: the honest update, made large."""

from dataclasses import dataclass

import torch

from byzflower.attacks.base import LocalAttack, LocalView


def scale(gradient: torch.Tensor, factor: float) -> torch.Tensor:
    """Return factor * g (Bagdasaryan et al., 2020, as the SafeSparse paper uses it, without a backdoor)."""
    return gradient * factor


@dataclass(frozen=True, kw_only=True)
class Scaling(LocalAttack):
    """Byzantine clients upload their own honest update times a large factor.

    Attributes:
        factor: the papers say only "large"; 10 is the project's choice.
    """

    factor: float = 10.0

    def corrupt(self, view: LocalView) -> torch.Tensor:
        """Apply `scale`."""
        return scale(view.gradient, self.factor)
