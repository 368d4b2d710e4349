"""ResNet-9: a short and wide residual network."""

import torch
from torch import nn

from byzflower.models.norm import Norm, make_norm


def _convolution(inputs: int, channels: int, norm: Norm, pooled: bool) -> nn.Sequential:
    """A normalised 3 x 3 convolution with ReLU, and max-pooling by 2 if asked for."""
    layers = [nn.Conv2d(inputs, channels, 3, 1, 1, bias=False), make_norm(norm, channels), nn.ReLU()]
    return nn.Sequential(*layers, *([nn.MaxPool2d(2, ceil_mode=True)] if pooled else []))


class ResNet9(nn.Module):
    """ResNet-9, short and wide: 6,568,000 + 513 x classes parameters on 3 channels.

    Convolutions with 64, 128, 256 and 512 channels, the last three max-pooled by 2; two residual blocks
    of two convolutions, after the second and the last; a linear layer on each channel's maximum. The
    papers name the network without its details; this is its common form.
    """

    def __init__(self, input_shape: tuple[int, ...], num_classes: int, *, norm: Norm = "batch"):
        super().__init__()
        self.conv1 = _convolution(input_shape[0], 64, norm, pooled=False)
        self.conv2 = _convolution(64, 128, norm, pooled=True)
        self.res1 = nn.Sequential(*(_convolution(128, 128, norm, pooled=False) for _ in range(2)))
        self.conv3 = _convolution(128, 256, norm, pooled=True)
        self.conv4 = _convolution(256, 512, norm, pooled=True)
        self.res2 = nn.Sequential(*(_convolution(512, 512, norm, pooled=False) for _ in range(2)))
        self.fc = nn.Linear(512, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits: (b, c, h, w) -> (b, num_classes)."""
        x = self.conv2(self.conv1(x))
        x = self.conv4(self.conv3(x + self.res1(x)))
        x = x + self.res2(x)
        logits: torch.Tensor = self.fc(x.amax(dim=(2, 3)))
        return logits
