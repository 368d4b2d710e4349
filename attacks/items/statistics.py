"""Attacks by the statistics of each item's benign rows: Gaussian, LIE and Fang, item by item."""

from dataclasses import dataclass

import torch

from byzflower.attacks.items.base import CraftedRows, ItemAttack, ItemView, touched_items


@dataclass(frozen=True, kw_only=True)
class ItemGaussian(ItemAttack):
    """Gaussian, per item: rows from the normal distribution fitted to the benign ones (Fang et al., 2020)."""

    def craft(self, view: ItemView) -> CraftedRows:
        """Draw a row for each attacker and item."""
        noise = torch.randn(view.num_byzantine, *view.table.shape, generator=view.generator)
        return CraftedRows(touched_items(view), noise.mul_(view.benign.std).add_(view.means))


@dataclass(frozen=True, kw_only=True)
class ItemLIE(ItemAttack):
    """A little is enough, per item: the mean benign row plus z standard deviations (Baruch et al., 2019).

    Attributes:
        z: 0.1 in Spattack.
    """

    z: float = 0.1

    def craft(self, view: ItemView) -> CraftedRows:
        """Shift the benign mean of every item."""
        return CraftedRows(touched_items(view), view.means + self.z * view.benign.std)


@dataclass(frozen=True, kw_only=True)
class ItemFang(ItemAttack):
    """Fang, per item: the mean benign row times -r, with r uniform in [low, high], anew each round.

    Attributes:
        low: 3 in Spattack.
        high: 4 in Spattack.
    """

    low: float = 3.0
    high: float = 4.0

    def craft(self, view: ItemView) -> CraftedRows:
        """Scale the benign mean of every item by a negative factor of its own."""
        scale = torch.rand(len(view.table), 1, generator=view.generator)
        return CraftedRows(touched_items(view), -view.means * (self.low + (self.high - self.low) * scale))
