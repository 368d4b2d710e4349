"""The normalisation layers that models offer as an option."""

from typing import Literal

from torch import nn

Norm = Literal["batch", "group"]
_GROUPS = 8


def make_norm(norm: Norm, channels: int) -> nn.Module:
    """Make the layer that normalises images of so many channels (a multiple of 8).

    Args:
        norm: "batch", or "group" for group normalisation with 8 groups (the project's choice), which
            keeps no running statistics, does not mix samples, and has as many parameters.
        channels: of the images.

    Raises:
        ValueError: another norm.
    """
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "group":
        return nn.GroupNorm(_GROUPS, channels)
    raise ValueError(f"norm must be batch or group, got {norm!r}")
