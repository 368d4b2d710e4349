"""Bucketing: random groups of uploads become their means."""

import math
from dataclasses import dataclass

import torch
from typing_extensions import override

from byzflower.numerics.randomness import torch_generator
from byzflower.numerics.rows import Rows
from byzflower.strategies.pre_aggregation.base import PreAggregation
from byzflower.strategies.result import NumByzantine, check


@dataclass(frozen=True)
class Bucketing(PreAggregation):
    """Means of s uploads each, assigned at random every round: n becomes ceil(n/s).

    Karimireddy et al. (2022). The last bucket gets the remainder. A Byzantine upload spoils its whole bucket,
    so f stays the same while n shrinks.

    Attributes:
        s: uploads in a bucket, at least 1.
        seed: of the permutations, besides the run's.
    """

    s: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        check(self.s >= 1, "s must be at least 1", self.s)

    @override
    def apply(self, rows: Rows, num_byzantine: NumByzantine | None = None, seed: int = 0) -> Rows:
        order = torch.randperm(rows.n, generator=torch_generator(seed, f"bucketing-{self.seed}"))
        bucket = torch.empty_like(order)
        bucket[order] = torch.arange(rows.n) // self.s
        mixing = torch.zeros(math.ceil(rows.n / self.s), rows.n, dtype=torch.float64)
        mixing[bucket, torch.arange(rows.n)] = 1
        mixing /= mixing.sum(dim=1, keepdim=True)
        return rows.mixed(mixing.to(rows.device))
