"""Divide and conquer: drops outliers along the direction in which the uploads differ most."""

import math
from typing import Unpack

import torch

from byzflower.numerics.randomness import torch_generator
from byzflower.numerics.rows import Rows
from byzflower.numerics.threads import one_thread
from byzflower.strategies.base import RobustStrategy
from byzflower.strategies.krum import best_rows
from byzflower.strategies.options import StrategyOptions
from byzflower.strategies.result import (
    AggregationResult,
    Gradients,
    NumByzantine,
    average,
    check,
    check_num_byzantine,
    require,
)


@one_thread()
def dnc(
    gradients: Gradients,
    num_byzantine: int,
    c: float = 1.0,
    niters: int = 1,
    b: int = 1000,
    seed: int = 0,
) -> AggregationResult:
    """Drop the rows that stand out along the top right singular vector (Shejwalkar & Houmansadr, 2021).

    `niters` times: sample b coordinates, centre the rows there, score each by its squared projection on the
    top right singular vector, and drop the floor(c f) highest. Rows kept every time are averaged; if there
    are none, those kept the last time.

    Args:
        gradients: (n, d) pseudo-gradients.
        num_byzantine: f.
        c: how many times f rows to drop, positive.
        niters: iterations, at least 1.
        b: coordinates in a sample, at least 1; all if there are fewer.
        seed: of the samples.

    Raises:
        TooFewClients: n <= floor(c f).
        ValueError: a parameter out of its range.
    """
    rows = Rows.of(gradients)
    check_num_byzantine(num_byzantine)
    _check_options(c, niters, b)
    drop = math.floor(c * num_byzantine + 1e-9)
    require(rows.n > drop, "DnC", f"n > floor(c f) = {drop}", rows.n, num_byzantine)
    kept = torch.ones(rows.n, dtype=torch.bool, device=rows.device)
    for i in range(niters):
        sample = torch.randperm(rows.d, generator=torch_generator(seed, "dnc", i))[:b].sort().values
        kept_now = best_rows(_outlyingness(rows.block(sample.to(rows.device))), rows.n - drop)
        kept &= kept_now
    return average(rows, kept if kept.any() else kept_now)


def _check_options(c: float, niters: int, b: int) -> None:
    check(c > 0, "c must be positive", c)
    check(niters >= 1, "niters must be at least 1", niters)
    check(b >= 1, "b must be at least 1", b)


def _outlyingness(sampled: torch.Tensor) -> torch.Tensor:
    """Squared projections of centred rows on their top right singular vector, up to a factor: (n, b) -> (n,).

    They are the entries of the top left singular vector times the singular value, which the n x n Gram
    matrix has.
    """
    centred = sampled.double()
    centred = centred - centred.mean(dim=0)
    values, vectors = torch.linalg.eigh(centred @ centred.T)
    squares = vectors[:, -1] ** 2
    # Equal distances differ by rounding, which depends on the machine: they must tie.
    outlyingness: torch.Tensor = values[-1] * squares.mul(2.0**32).round()
    return outlyingness


class DnC(RobustStrategy):
    """Mean of the uploads that do not stand out along the top singular vector of sampled coordinates."""

    def __init__(
        self,
        num_byzantine: NumByzantine = 0,
        c: float = 1.0,
        niters: int = 1,
        b: int = 1000,
        **options: Unpack[StrategyOptions],
    ) -> None:
        """Make the strategy.

        Args:
            num_byzantine: f, or the fraction of the clients that replied.
            c: how many times f uploads to drop in an iteration, positive.
            niters: iterations, at least 1.
            b: coordinates sampled in an iteration, anew every round.
            options: see `RobustStrategy`.
        """
        super().__init__(**options)
        _check_options(c, niters, b)
        self.num_byzantine = num_byzantine
        self.c = c
        self.niters = niters
        self.b = b

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `dnc`."""
        f = self.count_byzantine(gradients)
        return dnc(gradients, f, self.c, self.niters, self.b, self.round_seed("dnc"))
