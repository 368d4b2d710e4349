"""Weights of a torch module as a list of arrays."""

import torch
from flwr.common import NDArrays
from torch import nn


def get_weights(model: nn.Module) -> NDArrays:
    """Copy the weights out."""
    return [tensor.cpu().numpy() for tensor in model.state_dict().values()]


def set_weights(model: nn.Module, weights: NDArrays) -> None:
    """Copy weights in."""
    model.load_state_dict(
        {name: torch.tensor(w) for name, w in zip(model.state_dict(), weights, strict=True)}
    )
