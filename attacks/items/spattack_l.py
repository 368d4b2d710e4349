"""Spattack of attackers that know nothing: the same noise from all of them, in all rounds."""

from dataclasses import dataclass

import torch

from byzflower.attacks.items.base import CraftedRows, ItemAttack, ItemView, every_item, popular_items


@dataclass(frozen=True, kw_only=True)
class _Noise(ItemAttack):
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

    def noise(self, shape: torch.Size, stream: int = 0) -> torch.Tensor:
        """The attackers' common noise, normal with mean 0."""
        generator = torch.Generator().manual_seed(self.noise_seed + stream)
        return torch.randn(shape, generator=generator) * self.std

    def craft_dense(self, view: ItemView) -> torch.Tensor:
        """Noise there, too."""
        return self.noise(view.dense.shape[1:], stream=1)


@dataclass(frozen=True, kw_only=True)
class SpattackLD(_Noise):
    """Spattack-L-D: all attackers send the same standard normal row for every item, in every round.

    Attributes:
        noise_seed: of the rows.
        std: of the rows.
    """

    def craft(self, view: ItemView) -> CraftedRows:
        """Send noise for all items."""
        return CraftedRows(every_item(view), self.noise(view.table.shape))


@dataclass(frozen=True, kw_only=True)
class SpattackLS(_Noise):
    """Spattack-L-S: the same rows on items drawn by popularity.

    Attributes:
        noise_seed: of the rows.
        std: of the rows.
    """

    def craft(self, view: ItemView) -> CraftedRows:
        """Send noise for the items that were drawn."""
        return CraftedRows(popular_items(view), self.noise(view.table.shape))
