"""Spattack of omniscient attackers: item rows that cancel the sum of the benign ones."""

from dataclasses import dataclass

from byzflower.attacks.items.base import (
    CraftedRows,
    ItemAttack,
    ItemView,
    PopularItemsAttack,
    every_item,
)


@dataclass(frozen=True, kw_only=True)
class SpattackOD(ItemAttack):
    """Spattack-O-D: every attacker sends, for every item, -1/f of the benign rows' sum."""

    def craft(self, view: ItemView) -> CraftedRows:
        """Cancel the benign rows of all items."""
        return CraftedRows(every_item(view), -view.benign.sums / view.num_byzantine)


@dataclass(frozen=True, kw_only=True)
class SpattackOS(PopularItemsAttack):
    """Spattack-O-S: the same on items drawn by popularity, shared by the attackers that drew the item."""

    def craft(self, view: ItemView) -> CraftedRows:
        """Cancel the benign rows of the items that were drawn."""
        chosen = self.choose(view)
        return CraftedRows(chosen, -view.benign.sums / chosen.sum(dim=0).clamp(min=1)[:, None])
