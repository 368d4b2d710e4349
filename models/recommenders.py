"""Recommenders by name, in two kinds: by what clients do not share.

Stateless ones (`StatelessRecommender`: FISM, FMF) know a user by its items alone. Their clients take a step
of the server's optimizer and upload moments (`byzflower.clients.recommender.moments`). Personal ones (MF,
GNN) have an embedding per user that never leaves the client, who uploads gradients of the items
(`byzflower.clients.recommender.client`).
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from byzflower.models.fism import FISM
from byzflower.models.fmf import FMF
from byzflower.models.gnn import GNN
from byzflower.models.mf import MF
from byzflower.models.seeding import seeded
from byzflower.models.stateless import StatelessRecommender

PersonalRecommender = MF | GNN
STATELESS: dict[str, Callable[..., StatelessRecommender]] = {"fism": FISM, "fmf": FMF}
PERSONAL: dict[str, type[MF] | type[GNN]] = {"gnn": GNN, "mf": MF}


def build_stateless(
    name: str, num_items: int, seed: int = 0, options: Mapping[str, Any] | None = None
) -> StatelessRecommender:
    """Build a recommender whose initial vectors depend on `seed` alone.

    Args:
        name: a key of `STATELESS`.
        num_items: number of items.
        seed: of the initial vectors.
        options: the model's own parameters.
    """
    return seeded(seed, lambda: STATELESS[name](num_items, **(options or {})))


def describe_personal(name: str, options: Mapping[str, Any] | None = None) -> PersonalRecommender:
    """Make the description of a recommender, which holds no parameters.

    Args:
        name: a key of `PERSONAL`.
        options: its own parameters, e.g. ``{"dim": 16}``.

    Raises:
        ValueError: an option out of its range.
    """
    return _describe(name, tuple(sorted((options or {}).items())))


@lru_cache(maxsize=8)
def _describe(name: str, options: tuple[tuple[str, Any], ...]) -> PersonalRecommender:
    return PERSONAL[name](**dict(options))
