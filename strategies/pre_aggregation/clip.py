"""Clipping to a fixed norm."""

from dataclasses import dataclass

from typing_extensions import override

from byzflower.numerics.rows import Rows
from byzflower.strategies.pre_aggregation.base import PreAggregation, clipped
from byzflower.strategies.result import NumByzantine, check


@dataclass(frozen=True)
class Clip(PreAggregation):
    """Uploads longer than `max_norm` are scaled down to it.

    Attributes:
        max_norm: positive.
    """

    max_norm: float

    def __post_init__(self) -> None:
        check(self.max_norm > 0, "max_norm must be positive", self.max_norm)

    @override
    def apply(self, rows: Rows, num_byzantine: NumByzantine | None = None, seed: int = 0) -> Rows:
        return clipped(rows, self.max_norm)
