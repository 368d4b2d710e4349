"""The result of a rule, and checks of its parameters and requirements."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from byzflower.numerics.rows import Rows, TooFewClients

NumByzantine = int | float
Gradients = torch.Tensor | Rows


@dataclass(frozen=True)
class AggregationResult:
    """Outcome of one aggregation.

    Attributes:
        gradient: (d,) the aggregate.
        selected: boolean (n,), the rows that were kept, for rules that select; else None.
        weights: (n,) the weights of the rows in the aggregate, for rules that weight; else None.
        info: numbers worth recording, e.g. scores' extremes.
        reasons: why rows were left out, by position, for rules that say.
        moves: boolean (d,), the columns that may step; None for all.
    """

    gradient: torch.Tensor
    selected: torch.Tensor | None = None
    weights: torch.Tensor | None = None
    info: Mapping[str, float] = field(default_factory=dict)
    reasons: Mapping[int, str] = field(default_factory=dict)
    moves: torch.Tensor | None = None

    def for_clients(self, rows: Rows) -> "AggregationResult":
        """The result with `selected` and `weights` of the clients that the rows were made of.

        A client's weight is that of its upload through all pre-aggregations (of a sparsified upload: of what
        was left of it). It is selected if it entered a selected row.
        """
        selected = None if self.selected is None else rows.to_clients(self.selected.double()) > 0
        weights = None if self.weights is None else rows.to_clients(self.weights)
        return replace(self, selected=selected, weights=weights)


def require(condition: bool, rule: str, needs: str, n: int, f: int | None = None) -> None:
    """Raise `TooFewClients` naming the rule, its requirement, n and f, unless `condition` holds."""
    if not condition:
        got = f"n={n}" if f is None else f"n={n}, f={f}"
        raise TooFewClients(f"{rule} needs {needs}, got {got}")


def check(condition: bool, requirement: str, value: object) -> None:
    """Raise ValueError naming the requirement and the value, unless `condition` holds."""
    if not condition:
        raise ValueError(f"{requirement}, got {value!r}")


def check_num_byzantine(num_byzantine: int) -> None:
    """Raise ValueError for a negative f."""
    check(num_byzantine >= 0, "num_byzantine must not be negative", num_byzantine)


def count_byzantine(num_byzantine: NumByzantine, n: int) -> int:
    """Return f for n clients: `num_byzantine` itself, or floor(fraction * n) if it is a fraction.

    Raises:
        ValueError: negative, or a fraction outside [0, 0.5).
    """
    if isinstance(num_byzantine, int):
        check_num_byzantine(num_byzantine)
        return num_byzantine
    check(0 <= num_byzantine < 0.5, "num_byzantine, as a fraction, must be in [0, 0.5)", num_byzantine)
    return math.floor(num_byzantine * n + 1e-9)


def uniform_over(selected: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Weights, summing to 1, of the selected rows: equal, or in proportion to (n,) `weights`.

    Equal also if the selected ones have no weight at all.
    """
    equal = selected.double()
    share = equal if weights is None else torch.where(selected, weights.double(), 0.0)
    share = share if share.sum() > 0 else equal
    return share / share.sum()


def average(
    rows: Rows,
    selected: torch.Tensor,
    weights: torch.Tensor | None = None,
    info: Mapping[str, float] | None = None,
) -> AggregationResult:
    """The mean of the selected rows: the last step of rules that select.

    Args:
        rows: n rows.
        selected: boolean (n,), not all False.
        weights: (n,) weights of the mean, default uniform.
        info: numbers worth recording.
    """
    share = uniform_over(selected, weights)
    return AggregationResult(rows.combine(share), selected, share, info or {})


def capped_weights(num_examples: torch.Tensor, cap: float | None) -> torch.Tensor:
    """Normalise sizes to shares that sum to 1, none above `cap` (or 1/n if that is larger).

    The excess is distributed over the others in proportion to their sizes.
    """
    weights = num_examples.double() / num_examples.double().sum()
    if cap is None:
        return weights
    cap = max(cap, 1 / len(weights))
    capped = torch.zeros(len(weights), dtype=torch.bool)
    while True:
        over = (weights > cap) & ~capped
        if not over.any():
            return weights
        capped |= over
        free = 1 - cap * int(capped.sum())
        rest = num_examples.double() * ~capped
        share = rest / rest.sum() if rest.sum() > 0 else rest
        weights = torch.where(capped, cap, share * free)
