"""Models made by name, with initial weights that depend on a seed alone."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from torch import nn

from byzflower.models import MODELS, PERSONAL, STATELESS
from byzflower.models.gnn import GNN
from byzflower.models.mf import MF
from byzflower.models.seeding import seeded
from byzflower.models.stateless import StatelessRecommender

PersonalRecommender = MF | GNN


def build_model(
    name: str,
    input_shape: tuple[int, ...],
    num_classes: int,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build a classifier whose initial weights depend on `seed` alone.

    Torch's layers draw from the global generator; it is restored afterwards.

    Args:
        name: a key of `MODELS`.
        input_shape: shape of one example, e.g. (1, 28, 28).
        num_classes: number of logits.
        seed: of the initial weights.
        options: the model's own parameters, e.g. ``{"norm": "group"}``.
    """
    return seeded(seed, lambda: MODELS[name](input_shape, num_classes, **(options or {})))


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
