"""A new model."""

import math

import torch
from torch import nn


class Linear(nn.Module):
    """Logistic regression on the pixels."""

    def __init__(self, input_shape: tuple[int, ...], num_classes: int) -> None:
        """Make the model.

        Args:
            input_shape: shape of one example.
            num_classes: number of logits.
        """
        super().__init__()
        self.layer = nn.Linear(math.prod(input_shape), num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (b, num_classes) of images (b, *input_shape)."""
        logits: torch.Tensor = self.layer(images.flatten(1))
        return logits
