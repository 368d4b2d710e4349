"""Attacks by poisoned profiles: fake users who train like benign ones on the wrong pairs."""

from dataclasses import dataclass

import numpy as np
import torch

from byzflower.attacks.items.base import Indices, ProfileAttack


@dataclass(frozen=True, kw_only=True)
class ProfileFlip(ProfileAttack):
    """LabelFlip for recommenders: a fake user whose positive and negative items are swapped."""

    def poison(
        self, positives: Indices, negatives: Indices, user: torch.Tensor, table: torch.Tensor
    ) -> tuple[Indices, Indices]:
        """Swap them."""
        return negatives, positives


@dataclass(frozen=True, kw_only=True)
class FedAttack(ProfileAttack):
    """FedAttack: a fake user's likeliest items as negatives, unlikeliest as positives (Wu et al., 2022)."""

    def poison(
        self, positives: Indices, negatives: Indices, user: torch.Tensor, table: torch.Tensor
    ) -> tuple[Indices, Indices]:
        """Sort all items by their score for the user; as many from either end as the user has items."""
        count = min(len(positives), len(table) // 2)
        order = np.argsort((table @ user).numpy(), kind="stable")
        return order[:count], order[::-1][:count].copy()
