"""Classification data sets: arrays on disk that all processes memory-map."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class Dataset:
    """Images and labels, split into train and test.

    Attributes:
        train_x: (m, c, h, w) uint8 or float32, usually memory-mapped.
        train_y: (m,) int64 labels in [0, num_classes).
        test_x: like train_x.
        test_y: like train_y.
        num_classes: number of classes.
        mean: (c,) of the training images, on the scale of the raw values.
        std: (c,), likewise.
        train_groups: (m,) which natural client (a writer, say) each training example is from, numbered
            from 0; None where there are no natural clients.
    """

    train_x: NDArray[Any]
    train_y: NDArray[np.int64]
    test_x: NDArray[Any]
    test_y: NDArray[np.int64]
    num_classes: int
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    train_groups: NDArray[np.int64] | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape (c, h, w) of one example."""
        return tuple(self.train_x.shape[1:])

    def images(self, raw: NDArray[Any]) -> torch.Tensor:
        """Standardise raw images: (b, c, h, w) of any type -> float32, mean 0 and std 1 per channel."""
        mean, std = self._moments
        return torch.from_numpy(raw.astype(np.float32)).sub_(mean).div_(std)

    @cached_property
    def _moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(self.mean).view(1, -1, 1, 1), torch.from_numpy(self.std).view(1, -1, 1, 1)

    def train(self, indices: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Training examples at `indices`: standardised images and labels."""
        return self.images(self.train_x[indices]), torch.from_numpy(self.train_y[indices])

    def test(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The whole test set: standardised images and labels."""
        return self.images(np.asarray(self.test_x)), torch.from_numpy(np.array(self.test_y))
