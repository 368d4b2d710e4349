"""FedGNN: a two-layer graph network on each user's own star graph of the user and its items."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from byzflower.models.mf import ITEMS, UserGradients, pulls
from byzflower.models.profiles import Floats, Indices, Profiles
from byzflower.numerics.randomness import numpy_generator

_LAYERS = ("self1", "neighbour1", "self2", "neighbour2")


class GNN:
    """FedGNN: embeddings passed twice along a user's own graph; the layers' weights are shared, too.

    Each layer is h' = ReLU(h W_self + mean of the neighbours' h W_neighbour). The user's neighbours are its
    items, an item's only neighbour is the user; an item that the user does not have has no neighbour. The
    score of an item is the product of its last layer with the user's (after Wu et al., 2021).
    """

    def __init__(self, dim: int = 32, hidden: int = 64, std: float = 0.01) -> None:
        """Describe the model.

        Args:
            dim: length of an embedding.
            hidden: width of both layers.
            std: standard deviation of the initial embeddings.

        Raises:
            ValueError: not positive.
        """
        if min(dim, hidden) < 1 or std <= 0:
            raise ValueError(f"dim, hidden and std must be positive, got {dim}, {hidden}, {std}")
        self.dim = dim
        self.hidden = hidden
        self.std = std

    def arrays(self, num_items: int, seed: int) -> dict[str, NDArray[Any]]:
        """The shared parameters: the (m, d) item table first, then four matrices (Xavier)."""
        random = numpy_generator(seed, "item-embeddings")
        arrays = {ITEMS: random.normal(0, self.std, (num_items, self.dim)).astype(np.float32)}
        for name, width in zip(_LAYERS, (self.dim, self.dim, self.hidden, self.hidden), strict=True):
            bound = np.sqrt(6 / (width + self.hidden))
            arrays[name] = random.uniform(-bound, bound, (width, self.hidden)).astype(np.float32)
        return arrays

    def user(self, seed: int, user: int) -> Floats:
        """A user's initial embedding, (d,)."""
        random = numpy_generator(seed, "user-embedding", client=user)
        return random.normal(0, self.std, self.dim).astype(np.float32)

    def gradients(
        self, profiles: Profiles, users: Floats, arrays: list[NDArray[Any]], reg: float
    ) -> UserGradients:
        """Gradients of the users' losses, which are those of `MF.gradients`, one user after the other."""
        rows = np.empty((len(profiles.items), self.dim), np.float32)
        dense, own, losses = [], np.empty_like(users), np.empty(len(users), np.float32)
        layers = [torch.tensor(a) for a in arrays[1:]]
        for i in range(len(users)):
            block = profiles.block(i, i + 1)
            place = slice(profiles.splits[i], profiles.splits[i + 1])
            user = torch.tensor(users[i]).requires_grad_()
            items = torch.tensor(arrays[0][block.items]).requires_grad_()
            weights = [layer.detach().requires_grad_() for layer in layers]
            scores = _scores(user, items, torch.from_numpy(block.is_positive), weights)
            pull, losses[i : i + 1] = pulls(block, scores.detach().numpy())
            by = torch.autograd.grad(scores, [user, items, *weights], torch.from_numpy(pull))
            own[i] = by[0].numpy() + reg * users[i]
            rows[place] = by[1].numpy() + reg * items.detach().numpy()
            dense.append(torch.cat([g.reshape(-1) for g in by[2:]]).numpy())
        return UserGradients(rows, np.stack(dense), own, losses)

    def scores(
        self, profiles: Profiles, users: Floats, arrays: list[NDArray[Any]], candidates: Indices
    ) -> Floats:
        """Score (k, c) items, none of which the users have, for each user; see `MF.scores`."""
        weights = [torch.tensor(a) for a in arrays[1:]]
        out = np.empty(candidates.shape, np.float32)
        for i in range(len(users)):
            block = profiles.block(i, i + 1)
            known = block.items[block.is_positive]
            items = torch.tensor(arrays[0][np.concatenate([known, candidates[i]])])
            positive = torch.arange(len(items)) < len(known)
            out[i] = _scores(torch.tensor(users[i]), items, positive, weights)[len(known) :].numpy()
        return out


def _scores(
    user: torch.Tensor, items: torch.Tensor, positive: torch.Tensor, weights: list[torch.Tensor]
) -> torch.Tensor:
    """(c,) scores of the items for the user whose graph has the `positive` ones."""
    for own, neighbour in (weights[:2], weights[2:]):
        around = items[positive].mean(dim=0) if bool(positive.any()) else torch.zeros_like(user)
        next_user = torch.relu(user @ own + around @ neighbour)
        items = torch.relu(items @ own + positive[:, None] * (user @ neighbour))
        user = next_user
    return items @ user
