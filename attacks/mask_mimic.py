"""Mask mimicry: masks of benign clients, and signs no more alike than theirs."""

from dataclasses import dataclass

import torch

from byzflower.attacks.masks import MaskAttack, PackView
from byzflower.numerics.reductions import gram


def mean_sign_cosine(rows: torch.Tensor) -> float:
    """Mean cosine of the signs of two of the (m, d) rows, where neither is 0; 0 if there are no two."""
    m = len(rows)
    if m < 2:
        return 0.0
    signs = rows.sign()
    nowhere = torch.zeros_like(rows[0])
    agree, overlap = gram(signs, origin=nowhere), gram(signs.abs_(), origin=nowhere)
    cosines = torch.where(overlap > 0, agree / overlap.clamp(min=1), 0.0).fill_diagonal_(0)
    return float(cosines.sum() / (m * (m - 1)))


def spread_signs(rows: torch.Tensor, flip: float, generator: torch.Generator) -> torch.Tensor:
    """Negate each value of (f, d) rows with probability `flip`, each row by itself.

    Equal rows then have signs of cosine (1 - 2 flip)^2, in expectation.
    """
    draws = torch.rand(rows.shape, generator=generator, dtype=torch.float32)
    return torch.where(draws < flip, -rows, rows)


@dataclass(frozen=True, kw_only=True)
class MaskMimic(MaskAttack):
    """Byzantine clients copy benign clients' masks and flip random signs, so that they form no cluster.

    Each attacker copies another benign client. An attack of this project, against SafeSparse.

    Attributes:
        flip: probability that a value's sign is flipped, in [0, 0.5]; None for as much as makes the
            attackers, if their uploads would be equal, as similar to each other as benign clients are.
    """

    flip: float | None = None

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        if self.flip is not None and not 0 <= self.flip <= 0.5:
            raise ValueError(f"flip must be in [0, 0.5], got {self.flip}")

    def place(self, crafted: torch.Tensor, view: PackView) -> tuple[torch.Tensor, torch.Tensor]:
        """Copy masks, flip signs."""
        order = torch.randperm(len(view.masks), generator=view.generator)
        copied = order[torch.arange(len(crafted)) % len(order)]
        flip = self.flip
        if flip is None:
            flip = (1 - max(mean_sign_cosine(view.benign), 0.0) ** 0.5) / 2
        return spread_signs(crafted, flip, view.generator), view.masks[copied]
