"""Base class of pre-aggregations."""

from abc import ABC, abstractmethod

import torch

from byzflower.numerics.rows import Rows
from byzflower.strategies.result import NumByzantine, count_byzantine


class PreAggregation(ABC):
    """Transforms a round's rows, before any rule.

    Implementations are frozen dataclasses, so that a strategy can be logged and compared.
    """

    @abstractmethod
    def apply(self, rows: Rows, num_byzantine: NumByzantine | None = None, seed: int = 0) -> Rows:
        """Return the new rows; nothing is copied.

        Args:
            rows: n rows.
            num_byzantine: f of the rule that comes after, if it has one: the default for
                pre-aggregations that need one.
            seed: of this round and this step.

        Raises:
            TooFewClients: n is too small.
        """


def resolve_byzantine(name: str, own: NumByzantine | None, of_rule: NumByzantine | None, rows: Rows) -> int:
    """The f to use: the pre-aggregation's own, else the rule's.

    Raises:
        ValueError: there is neither, or it is out of its range.
    """
    chosen = of_rule if own is None else own
    if chosen is None:
        raise ValueError(f"{name} needs num_byzantine: the rule has none to share")
    return count_byzantine(chosen, rows.num_clients)


def clipped(rows: Rows, limit: float | torch.Tensor) -> Rows:
    """Scale rows whose norm exceeds `limit` down to it."""
    return rows.mixed(clip_factors(rows.squared_norms.sqrt(), limit).diag())


def clip_factors(norms: torch.Tensor, limit: float | torch.Tensor) -> torch.Tensor:
    """min(1, limit / norm), which is 1 for a norm of zero."""
    return torch.where(norms > limit, limit / norms, 1.0)
