"""Spattack of omniscient attackers: the benign rows' sum, turned round."""

from dataclasses import dataclass

from byzflower.attacks.items.base import (
    CraftedRows,
    ItemAttack,
    ItemView,
    check_max_items,
    every_item,
    popular_items,
)


@dataclass(frozen=True, kw_only=True)
class SpattackOD(ItemAttack):
    """Spattack-O-D: every attacker sends, for every item, -1/f of the benign rows' sum."""

    def craft(self, view: ItemView) -> CraftedRows:
        """Cancel the benign rows of all items."""
        return CraftedRows(every_item(view), -view.sums / view.num_byzantine)


@dataclass(frozen=True, kw_only=True)
class SpattackOS(ItemAttack):
    """Spattack-O-S: the same on items drawn by popularity, shared by the attackers that drew the item.

    Attributes:
        max_items: how many each attacker poisons; 0 for as many as the busiest benign user uploads.
    """

    max_items: int = 0

    def __post_init__(self) -> None:
        """Check the parameters.

        Raises:
            ValueError: the number of items is negative.
        """
        super().__post_init__()
        check_max_items(self.max_items)

    def craft(self, view: ItemView) -> CraftedRows:
        """Cancel the benign rows of the items that were drawn."""
        chosen = popular_items(view, self.max_items)
        return CraftedRows(chosen, -view.sums / chosen.sum(dim=0).clamp(min=1)[:, None])
