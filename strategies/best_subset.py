"""Base of rules that average the best subset of n - f uploads."""

from typing import Unpack

from byzflower.strategies.base import BoundedStrategy
from byzflower.strategies.options import StrategyOptions
from byzflower.strategies.result import NumByzantine


class BestSubsetStrategy(BoundedStrategy):
    """Base of rules that search for a subset of n - f uploads, exhaustively while there are few of them."""

    def __init__(
        self,
        num_byzantine: NumByzantine = 0,
        max_subsets: int = 20_000,
        **options: Unpack[StrategyOptions],
    ) -> None:
        """Make the strategy.

        Args:
            num_byzantine: f, or the fraction of the clients that replied.
            max_subsets: up to so many subsets are all tried, else only every upload with its nearest
                ones (the round's info says which).
            options: see `RobustStrategy`.
        """
        super().__init__(num_byzantine, **options)
        self.max_subsets = max_subsets
