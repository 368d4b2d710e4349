"""Base of item rules that tolerate a given number of Byzantine rows per item."""

from typing import Unpack

from byzflower.strategies.items.base import Convention, ItemOptions, ItemStrategy
from byzflower.strategies.result import check, check_num_byzantine

FALLBACK = "items-by-median"


class BoundedItemStrategy(ItemStrategy):
    """Base of rules for f Byzantine rows per item; an item with too few rows gets their median.

    How many did is in the round's record, as ``items-by-median``.
    """

    def __init__(
        self, num_byzantine: int = 0, convention: Convention = "standard", **options: Unpack[ItemOptions]
    ) -> None:
        """Make the strategy.

        Args:
            num_byzantine: f, of each item's rows: any item may have been touched by all attackers.
            convention: "standard" is the rule as its own paper has it, "spattack" what the experiments of
                Spattack use; the class says how they differ.
            options: see `ItemStrategy`.
        """
        super().__init__(**options)
        check_num_byzantine(num_byzantine)
        check(convention in ("standard", "spattack"), "convention must be standard or spattack", convention)
        self.f = num_byzantine
        self.num_byzantine = num_byzantine
        self.convention = convention
