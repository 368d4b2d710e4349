"""Models by name: classifiers and recommenders."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from byzflower.models.alexnet import AlexNet
from byzflower.models.cnn import CNN
from byzflower.models.leaf_cnn import LeafCNN
from byzflower.models.mlp import MLP
from byzflower.models.resnet import ResNet18, ResNet20
from byzflower.models.resnet9 import ResNet9
from byzflower.models.seeding import seeded

MODELS: dict[str, Callable[..., nn.Module]] = {
    "alexnet": AlexNet,
    "cnn": CNN,
    "leafcnn": LeafCNN,
    "mlp": MLP,
    "resnet18": ResNet18,
    "resnet20": ResNet20,
    "resnet9": ResNet9,
}


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
    return seeded(seed, lambda: MODELS[name](input_shape, num_classes, **(options or {})))


__all__ = [
    "CNN",
    "MLP",
    "MODELS",
    "AlexNet",
    "LeafCNN",
    "ResNet9",
    "ResNet18",
    "ResNet20",
    "build_model",
]
