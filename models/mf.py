"""Federated matrix factorisation: the score of an item is its embedding times the user's."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from byzflower.models.profiles import Floats, Indices, Profiles
from byzflower.numerics.randomness import numpy_generator

ITEMS = "items"
# Rows worked on at a time: with 32 columns they stay in the L2 cache.
_BLOCK_ROWS = 1 << 12


class UserGradients(NamedTuple):
    """What k users compute in one round.

    Attributes:
        rows: (nnz, d) gradient of each user's loss for each of its items.
        dense: (k, w) gradient for the parameters that all users share; w may be 0.
        users: (k, d) gradient for the user's own embedding, which stays with the user.
        loss: (k,) mean ranking loss over the user's pairs, without regularisation.
    """

    rows: Floats
    dense: Floats
    users: Floats
    loss: Floats


class MF:
    """FedMF: an embedding per item, shared, and one per user, private."""

    def __init__(self, dim: int = 32, std: float = 0.01) -> None:
        """Describe the model.

        Args:
            dim: d, length of an embedding.
            std: standard deviation of the initial embeddings, which are normal with mean 0.

        Raises:
            ValueError: not positive.
        """
        if dim < 1 or std <= 0:
            raise ValueError(f"dim and std must be positive, got dim={dim}, std={std}")
        self.dim = dim
        self.std = std

    def arrays(self, num_items: int, seed: int) -> dict[str, NDArray[Any]]:
        """The shared parameters: the (m, d) item table first."""
        random = numpy_generator(seed, "item-embeddings")
        return {ITEMS: random.normal(0, self.std, (num_items, self.dim)).astype(np.float32)}

    def user(self, seed: int, user: int) -> Floats:
        """A user's initial embedding, (d,)."""
        random = numpy_generator(seed, "user-embedding", client=user)
        return random.normal(0, self.std, self.dim).astype(np.float32)

    def gradients(
        self, profiles: Profiles, users: Floats, arrays: list[NDArray[Any]], reg: float
    ) -> UserGradients:
        """Gradients of the users' losses; what a user gets does not depend on who else is in the batch.

        The loss of a user is the sum over its pairs of -log sigmoid(u.v_positive - u.v_negative), plus
        reg / 2 times the squared norms of u and of each distinct item's embedding.

        Args:
            profiles: k users' pairs.
            users: (k, d) their embeddings.
            arrays: the shared parameters.
            reg: weight of the regularisation.
        """
        table: Floats = arrays[0]
        k, d = users.shape
        out = UserGradients(
            np.empty((len(profiles.items), d), np.float32),
            np.empty((k, 0), np.float32),
            np.empty_like(users),
            np.zeros(k, np.float32),
        )
        for first, last in profiles.blocks(_BLOCK_ROWS):
            block, own = profiles.block(first, last), users[first:last]
            rows = out.rows[profiles.splits[first] : profiles.splits[last]]
            np.take(table, block.items, axis=0, out=rows)
            theirs = own[block.owner]
            pull, out.loss[first:last] = pulls(block, np.einsum("ij,ij->i", rows, theirs))
            out.users[first:last] = block.sums(pull, table) + reg * own
            rows *= reg
            theirs *= pull[:, None]
            rows += theirs
        return out

    def scores(
        self,
        profiles: Profiles,
        users: Floats,
        arrays: list[NDArray[Any]],
        candidates: Indices,
    ) -> Floats:
        """Score some items for each user.

        Args:
            profiles: k users' pairs.
            users: (k, d) their embeddings.
            arrays: the shared parameters.
            candidates: (k, c) items.

        Returns:
            (k, c) scores; more is better.
        """
        scores: Floats = np.einsum("kcd,kd->kc", arrays[0][candidates], users)
        return scores


def pulls(profiles: Profiles, scores: Floats) -> tuple[Floats, Floats]:
    """Derivatives of the ranking losses by the (nnz,) scores of the users' items, and the mean losses.

    Returns:
        (nnz,) derivatives and (k,) losses; 0 for a user without pairs.
    """
    from scipy.special import expit  # late: a classifier needs no scipy

    margin = scores[profiles.positive] - scores[profiles.negative]
    miss = expit(-margin)
    # Summed in the pairs' order, in float64: the same for a user alone.
    pull = np.bincount(profiles.negative, miss, len(scores))
    pull -= np.bincount(profiles.positive, miss, len(scores))
    owner = np.repeat(np.arange(len(profiles)), profiles.sizes)
    total = np.bincount(owner, np.logaddexp(0, -margin), len(profiles))
    return pull.astype(np.float32), (total / np.maximum(profiles.sizes, 1)).astype(np.float32)
