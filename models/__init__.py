"""Torch models by name."""

import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from byzflower.models.alexnet import AlexNet
from byzflower.models.cnn import CNN
from byzflower.models.fism import FISM
from byzflower.models.fmf import FMF
from byzflower.models.leaf_cnn import LeafCNN
from byzflower.models.mlp import MLP
from byzflower.models.recommender import Recommender
from byzflower.models.resnet import ResNet18, ResNet20
from byzflower.models.resnet9 import ResNet9

M = TypeVar("M", bound=nn.Module)

_global_generator = threading.Lock()
MODELS: dict[str, Callable[..., nn.Module]] = {
    "alexnet": AlexNet,
    "cnn": CNN,
    "leafcnn": LeafCNN,
    "mlp": MLP,
    "resnet18": ResNet18,
    "resnet20": ResNet20,
    "resnet9": ResNet9,
}
RECOMMENDERS: dict[str, Callable[..., Recommender]] = {"fism": FISM, "fmf": FMF}


def build_recommender(
    name: str, num_items: int, seed: int = 0, options: Mapping[str, Any] | None = None
) -> Recommender:
    """Build a recommender whose initial vectors depend on `seed` alone; see `build_model`.

    Args:
        name: a key of `RECOMMENDERS`.
        num_items: number of items.
        seed: of the initial vectors.
        options: the model's own parameters.
    """
    return _seeded(seed, lambda: RECOMMENDERS[name](num_items, **(options or {})))


def build_model(
    name: str,
    input_shape: tuple[int, ...],
    num_classes: int,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build a model whose initial weights depend on `seed` alone.

    Torch's layers draw from the global generator; it is restored afterwards.

    Args:
        name: a key of `MODELS`.
        input_shape: shape of one example, e.g. (1, 28, 28).
        num_classes: number of logits.
        seed: of the initial weights.
        options: the model's own parameters, e.g. ``{"norm": "group"}``.
    """
    return _seeded(seed, lambda: MODELS[name](input_shape, num_classes, **(options or {})))


def _seeded(seed: int, build: Callable[[], M]) -> M:
    with _global_generator, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs, too
        return build()


__all__ = [
    "CNN",
    "FISM",
    "FMF",
    "MLP",
    "MODELS",
    "RECOMMENDERS",
    "AlexNet",
    "LeafCNN",
    "Recommender",
    "ResNet9",
    "ResNet18",
    "ResNet20",
    "build_model",
    "build_recommender",
]
