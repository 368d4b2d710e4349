"""FISM: a user is represented by the mean of the items that it interacted with."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from typing_extensions import override

from byzflower.models.stateless import (
    ItemGradients,
    StatelessRecommender,
    UserItems,
    by_user,
    elementwise,
    pairwise_loss,
    sums,
    touched_rows,
)


class FISM(StatelessRecommender):
    """Factored item similarity: p_j times the mean q of the user's other items (Kabbur et al., 2013).

    y_ij = p_j . sum_{k in S_i, k != j} q_k / |S_i without j|^gamma, as in the A-RFRS paper, equation 1. A
    user is known by its items alone, so nothing of it must be learnt.
    """

    def __init__(self, num_items: int, *, dim: int = 64, std: float = 0.1, gamma: float = 1.0) -> None:
        """Make the tables.

        Args:
            num_items: number of items.
            dim: length of an item's vectors.
            std: of the initial N(0, std^2). The paper's 1 is not moved by steps of 1e-3 in any
                reasonable number of rounds.
            gamma: power of the number of items that a user's sum is divided by.
        """
        super().__init__()
        self.p = nn.Parameter(torch.randn(num_items, dim) * std)
        self.q = nn.Parameter(torch.randn(num_items, dim) * std)
        self.gamma = gamma

    @override
    def gradients(self, users: UserItems, reg: float) -> ItemGradients:
        p, q, user, per = self.p.detach(), self.q.detach(), users.users, users.per_item
        num_users = len(users.splits) - 1
        mine = q[torch.from_numpy(users.items).long()]
        counts = torch.from_numpy(np.diff(users.splits)).to(p.dtype)
        inner = self._share((counts - 1).clamp(min=1))[user, None]
        outer = self._share(counts)[user, None]
        totals = sums(mine, user, num_users)[user]
        without, whole = (totals - mine) * inner, (totals * outer).repeat_interleave(per, 0)
        touched = touched_rows(users, len(p))
        p_touched = p[touched.rows]
        p_own, p_other = p_touched[touched.own], p_touched[touched.other]
        score = (p_own * without).sum(dim=1).repeat_interleave(per) - (p_other * whole).sum(dim=1)
        losses, slopes = pairwise_loss(score)
        of_own, of_other = slopes.view(-1, per).sum(dim=1, keepdim=True), -slopes[:, None]
        d_p = sums(of_own * without, touched.own, len(p_touched))
        d_p += sums(of_other * whole, touched.other, len(p_touched)) + reg * p_touched
        pulled = of_own * p_own * inner
        pushed = sums(of_other * p_other, torch.arange(len(mine)).repeat_interleave(per), len(mine)) * outer
        d_q = sums(pulled + pushed, user, num_users)[user] - pulled + reg * mine
        q_rows = torch.from_numpy(users.items) + len(p)
        splits, rows, values = by_user(num_users, (touched.users, touched.rows, d_p), (user, q_rows, d_q))
        return ItemGradients(splits, rows, values, sums(losses, user.repeat_interleave(per), num_users))

    def _share(self, counts: torch.Tensor) -> torch.Tensor:
        return elementwise(lambda n: n**-self.gamma, counts)

    @override
    def scores(self, splits: NDArray[np.int64], items: NDArray[np.int32]) -> torch.Tensor:
        counts = torch.from_numpy(np.diff(splits))
        user = torch.arange(len(counts)).repeat_interleave(counts)
        totals = sums(self.q.detach()[torch.from_numpy(items).long()], user, len(counts))
        return (totals * self._share(counts.clamp(min=1).to(totals.dtype))[:, None]) @ self.p.detach().T
