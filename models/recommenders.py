"""Recommenders by name."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from byzflower.models.gnn import GNN
from byzflower.models.mf import MF

Recommender = MF | GNN
RECOMMENDERS: dict[str, type[MF] | type[GNN]] = {"gnn": GNN, "mf": MF}


def build_recommender(name: str, options: Mapping[str, Any] | None = None) -> Recommender:
    """Make a recommender.

    Args:
        name: a key of `RECOMMENDERS`.
        options: its own parameters, e.g. ``{"dim": 16}``.

    Raises:
        ValueError: an option out of its range.
    """
    return _build(name, tuple(sorted((options or {}).items())))


@lru_cache(maxsize=8)
def _build(name: str, options: tuple[tuple[str, Any], ...]) -> Recommender:
    return RECOMMENDERS[name](**dict(options))
