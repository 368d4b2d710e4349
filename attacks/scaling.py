"""Scaling: the benign upload, scaled up."""

from dataclasses import dataclass
from typing import Literal

import torch

from byzflower.attacks.base import LocalAttack, LocalView


def scale(gradient: torch.Tensor, factor: float) -> torch.Tensor:
    """Return factor * g (Bagdasaryan et al., 2020, as the SafeSparse paper uses it, without a backdoor)."""
    return gradient * factor


def scale_parameters(gradient: torch.Tensor, model: torch.Tensor, factor: float) -> torch.Tensor:
    """Return what moves the global model w to factor * (w - g), the local model made large."""
    return model - scale(model - gradient, factor)


@dataclass(frozen=True, kw_only=True)
class Scaling(LocalAttack):
    """Byzantine clients upload their own benign update, or model, times a large factor.

    Attributes:
        factor: the papers say only "large"; 10 is the project's choice. Negative factors negate it.
        scope: "update" for w + factor * (w_i - w), "parameters" for factor * w_i. A benign update times
            a positive factor keeps its signs; a defence that looks at signs alone lets it pass.
    """

    factor: float = 10.0
    scope: Literal["update", "parameters"] = "update"

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        if self.scope not in ("update", "parameters"):
            raise ValueError(f"scope must be update or parameters, got {self.scope!r}")

    def corrupt(self, view: LocalView) -> torch.Tensor:
        """Apply `scale` or `scale_parameters`."""
        if self.scope == "parameters":
            return scale_parameters(view.gradient, view.model, self.factor)
        return scale(view.gradient, self.factor)
