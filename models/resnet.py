"""Residual networks (He et al., 2016): ResNet-20 for small images, ResNet-18 for large ones."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from byzflower.models.norm import Norm, make_norm


class Block(nn.Module):
    """Two normalised 3 x 3 convolutions, added to their input."""

    def __init__(self, inputs: int, channels: int, stride: int, norm: Norm, projected: bool):
        """Make a block.

        Args:
            inputs: channels that come in.
            channels: channels that go out.
            stride: of the first convolution.
            norm: kind of normalisation.
            projected: whether an input of another shape is brought to size by a 1 x 1 convolution
                (option B of the paper), or by leaving out pixels and adding empty channels (option A).
        """
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
        self.bn1 = make_norm(norm, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = make_norm(norm, channels)
        self.stride, self.added = stride, channels - inputs
        self.downsample: nn.Module | None = None
        if projected and (stride > 1 or self.added):
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, channels, 1, stride, bias=False), make_norm(norm, channels)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, inputs, h, w) -> (b, channels, h / stride, w / stride)."""
        out = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(out + self._shortcut(x))

    def _shortcut(self, x: torch.Tensor) -> torch.Tensor:
        if self.downsample is not None:
            projected: torch.Tensor = self.downsample(x)
            return projected
        before = self.added // 2
        kept = x[:, :, :: self.stride, :: self.stride]
        return F.pad(kept, (0, 0, 0, 0, before, self.added - before)) if self.added else kept


def _stages(widths: Sequence[int], blocks: int, norm: Norm, projected: bool) -> dict[str, nn.Module]:
    """One stage of `blocks` blocks per width; all but the first halve the image."""
    stages: dict[str, nn.Module] = {}
    inputs = widths[0]
    for number, width in enumerate(widths, start=1):
        strides = [1 if number == 1 else 2] + [1] * (blocks - 1)
        incoming = [inputs] + [width] * (blocks - 1)
        made = [Block(i, width, s, norm, projected) for i, s in zip(incoming, strides, strict=True)]
        stages[f"layer{number}"], inputs = nn.Sequential(*made), width
    return stages


def _head(channels: int, num_classes: int) -> dict[str, nn.Module]:
    """A linear layer on each channel's mean."""
    return {
        "avgpool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "fc": nn.Linear(channels, num_classes),
    }


def _initialise(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class ResNet20(nn.Sequential):
    """ResNet-20 for small images: 269,722 parameters on 3 x 32 x 32 images with 10 classes.

    Three stages of three blocks with 16, 32 and 64 channels and parameter-free shortcuts (option A).
    """

    def __init__(self, input_shape: tuple[int, ...], num_classes: int, *, norm: Norm = "batch"):
        super().__init__()
        layers = {
            "conv1": nn.Conv2d(input_shape[0], 16, 3, 1, 1, bias=False),
            "bn1": make_norm(norm, 16),
            "relu": nn.ReLU(),
            **_stages((16, 32, 64), 3, norm, projected=False),
            **_head(64, num_classes),
        }
        for name, layer in layers.items():
            self.add_module(name, layer)
        _initialise(self)


class ResNet18(nn.Sequential):
    """ResNet-18 for large images: 11,689,512 parameters on 3 channels with 1000 classes.

    A 7 x 7 stem that reduces images fourfold, and four stages of two blocks with 64 to 512 channels;
    arrays are named as torchvision's are, whose weights therefore fit.
    """

    def __init__(self, input_shape: tuple[int, ...], num_classes: int, *, norm: Norm = "batch"):
        super().__init__()
        layers = {
            "conv1": nn.Conv2d(input_shape[0], 64, 7, 2, 3, bias=False),
            "bn1": make_norm(norm, 64),
            "relu": nn.ReLU(),
            "maxpool": nn.MaxPool2d(3, 2, 1),
            **_stages((64, 128, 256, 512), 2, norm, projected=True),
            **_head(512, num_classes),
        }
        for name, layer in layers.items():
            self.add_module(name, layer)
        _initialise(self)
