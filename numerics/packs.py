"""Packs: the groups of neighbouring scalars that top-k uploads send or leave out."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

DEFAULT_PACK_SIZE = 64


@dataclass(frozen=True)
class Packs:
    """How d scalars are divided into packs of neighbours.

    Attributes:
        d: number of scalars.
        size: scalars in a pack, at least 1 (scalar top-k); the last pack may have fewer.
    """

    d: int
    size: int = DEFAULT_PACK_SIZE

    def __post_init__(self) -> None:
        """Check the size.

        Raises:
            ValueError: below 1.
        """
        if self.size < 1:
            raise ValueError(f"pack_size must be at least 1, got {self.size}")

    @property
    def count(self) -> int:
        """Number of packs P."""
        return -(-self.d // self.size)

    @property
    def mask_bytes(self) -> int:
        """Bytes of a mask, one bit per pack."""
        return -(-self.count // 8)

    @cached_property
    def spare(self) -> int:
        """Scalars that the last pack lacks."""
        return self.count * self.size - self.d

    def scalars(self, mask: NDArray[np.bool_]) -> int:
        """Number of scalars in the packs of a mask (P,)."""
        kept = int(np.count_nonzero(mask))
        return kept * self.size - (self.spare if kept and mask[-1] else 0)

    def columns(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which of the d scalars are in the packs of a mask: (P,) -> (d,)."""
        columns: NDArray[np.bool_] = np.repeat(mask, self.size)[: self.d]
        return columns

    def importance(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """L1 norm of every pack of (d,) values, in float64: (P,)."""
        starts = np.arange(0, self.d, self.size)
        norms: NDArray[np.float64] = np.add.reduceat(np.abs(values), starts, dtype=np.float64)
        return norms

    def quota(self, ratio: float) -> int:
        """How many packs a ratio in (0, 1] keeps: ceil(ratio P)."""
        return math.ceil(ratio * self.count - 1e-9)

    def largest(self, importance: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
        """Mask (P,) of the `count` most important packs; ties go to the lower index."""
        mask = np.zeros(self.count, np.bool_)
        mask[np.argsort(-importance, kind="stable")[:count]] = True
        return mask
