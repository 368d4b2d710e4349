"""FMF: matrix factorisation whose user vectors never leave the clients."""

import itertools

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
    pairwise_loss,
    sums,
    touched_rows,
)


class FMF(StatelessRecommender):
    """Federated matrix factorisation: item vectors at the server, a user's vector in its client.

    The A-RFRS paper's baseline (Ammad-ud-din et al., 2019): a client fits its user's vector to the item
    vectors that were broadcast, by ridge regression over all items with more weight on its own, and
    keeps nothing. The items are trained by the same ranking loss as FISM, so that the two differ in the
    model alone.
    """

    def __init__(
        self, num_items: int, *, dim: int = 64, std: float = 0.1, ridge: float = 1.0, confidence: float = 1.0
    ) -> None:
        """Make the table.

        Args:
            num_items: number of items.
            dim: length of a vector.
            std: of the initial N(0, std^2).
            ridge: weight of the user vector's squared norm, positive.
            confidence: additional weight of the user's own items.
        """
        super().__init__()
        self.q = nn.Parameter(torch.randn(num_items, dim) * std)
        self.ridge = ridge
        self.confidence = confidence

    def users(self, splits: NDArray[np.int64], items: NDArray[np.int32]) -> torch.Tensor:
        """Vectors x of users with these items S: (users, dim).

        (Q^T Q + confidence Q_S^T Q_S + ridge I) x = (1 + confidence) sum of Q_S.
        """
        q = self.q.detach()
        base = q.T @ q + self.ridge * torch.eye(q.shape[1], dtype=q.dtype)
        vectors = []
        for start, stop in itertools.pairwise(splits):
            own = q[torch.from_numpy(items[start:stop]).long()]
            system = base + self.confidence * (own.T @ own)
            vectors.append(torch.linalg.solve(system, (1 + self.confidence) * own.sum(dim=0)))
        return torch.stack(vectors)

    def gradients(self, users: UserItems, reg: float) -> ItemGradients:
        """Each user's gradient by the item vectors; the user's own vector is held constant."""
        q, user, per = self.q.detach(), users.users, users.per_item
        num_users = len(users.splits) - 1
        vectors = self.users(users.splits, users.items)
        touched = touched_rows(users, len(q))
        own = touched.own.repeat_interleave(per)
        q_touched, x_touched = q[touched.rows], vectors[touched.users]
        scores = (q_touched * x_touched).sum(dim=1)
        losses, slopes = pairwise_loss(scores[own] - scores[touched.other])
        weights = sums(slopes, own, len(scores)) - sums(slopes, touched.other, len(scores))
        values = weights[:, None] * x_touched + reg * q_touched
        splits, rows, values = by_user(num_users, (touched.users, touched.rows, values))
        return ItemGradients(splits, rows, values, sums(losses, user.repeat_interleave(per), num_users))

    @override
    def scores(self, splits: NDArray[np.int64], items: NDArray[np.int32]) -> torch.Tensor:
        return self.users(splits, items) @ self.q.detach().T
