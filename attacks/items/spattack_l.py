"""Spattack of attackers without knowledge: the same noise from all of them, in all rounds."""

from dataclasses import dataclass

import torch

from byzflower.attacks.items.base import (
    CraftedRows,
    ItemAttack,
    ItemView,
    PopularItemsAttack,
    every_item,
)


@dataclass(frozen=True, kw_only=True)
class SpattackLD(ItemAttack):
    """Spattack-L-D: all attackers send the same standard normal row for every item, in every round.

    Attributes:
        noise_seed: of the rows.
        std: of the rows.
    """

    noise_seed: int = 0
    std: float = 1.0

    def __post_init__(self) -> None:
        """Check the parameters.

        Raises:
            ValueError: the standard deviation is not positive.
        """
        super().__post_init__()
        if self.std <= 0:
            raise ValueError(f"std must be positive, got {self.std}")

    def craft(self, view: ItemView) -> CraftedRows:
        """Send noise for the chosen items."""
        return CraftedRows(self.choose(view), self._noise(view.table.shape))

    def choose(self, view: ItemView) -> torch.Tensor:
        """All items, from everybody: (f, m)."""
        return every_item(view)

    def craft_dense(self, view: ItemView) -> torch.Tensor:
        """Noise there, too."""
        return self._noise(view.dense.shape[1:], stream=1)

    def _noise(self, shape: torch.Size, stream: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.noise_seed + stream)
        return torch.randn(shape, generator=generator) * self.std


@dataclass(frozen=True, kw_only=True)
class SpattackLS(PopularItemsAttack, SpattackLD):
    """Spattack-L-S: the rows of Spattack-L-D on items drawn by popularity."""
