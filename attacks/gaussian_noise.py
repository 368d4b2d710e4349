"""Gaussian noise attack: a random model that looks like the client's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from byzflower.attacks.base import LocalAttack, LocalView, gaussian


def random_model(model: torch.Tensor, tensors: Sequence[slice], generator: torch.Generator) -> torch.Tensor:
    """Draw a model from N(mean, var) of each part of a given one (SafeSparse, appendix E, "GNA").

    Args:
        model: (d,) weights.
        tensors: the columns of each part; a part of one scalar is copied, for its variance is 0.
        generator: of the noise.

    Returns:
        (d,) random weights.
    """
    mean, std = torch.empty_like(model), torch.empty_like(model)
    for columns in tensors:
        variance, centre = torch.var_mean(model[columns].double(), correction=0)
        mean[columns], std[columns] = centre, variance.sqrt()
    return gaussian(mean, std, generator, 1)[0]


@dataclass(frozen=True, kw_only=True)
class GaussianNoise(LocalAttack):
    """Byzantine clients upload a random model with the mean and variance of their own local one.

    The local model is the global one minus the benign update, also where clients upload gradients.

    Attributes:
        scope: "tensor" for the moments of each of the model's tensors, "model" for those of all
            weights together; the paper does not say which.
    """

    scope: Literal["tensor", "model"] = "tensor"

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        if self.scope not in ("tensor", "model"):
            raise ValueError(f"scope must be tensor or model, got {self.scope!r}")

    def corrupt(self, view: LocalView) -> torch.Tensor:
        """Return what moves the global model to a `random_model`."""
        whole = [slice(0, len(view.model))]
        parts = whole if self.scope == "model" else [tensor.columns for tensor in view.tensors]
        return view.model - random_model(view.model - view.gradient, parts, view.generator)
