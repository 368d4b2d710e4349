"""Torch models by name."""

import threading
from collections.abc import Callable

import torch
from torch import nn

from byzflower.models.cnn import CNN
from byzflower.models.mlp import MLP

_global_generator = threading.Lock()
MODELS: dict[str, Callable[[tuple[int, ...], int], nn.Module]] = {"cnn": CNN, "mlp": MLP}


def build_model(name: str, input_shape: tuple[int, ...], num_classes: int, seed: int = 0) -> nn.Module:
    """Build a model whose initial weights depend on `seed` alone.

    Torch's layers draw from the global generator; it is restored afterwards.

    Args:
        name: a key of `MODELS`.
        input_shape: shape of one example, e.g. (1, 28, 28).
        num_classes: number of logits.
        seed: of the initial weights.
    """
    with _global_generator, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs, too
        return MODELS[name](input_shape, num_classes)


__all__ = ["CNN", "MLP", "MODELS", "build_model"]
