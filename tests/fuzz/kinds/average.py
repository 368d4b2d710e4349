"""What the mean and the median of rows must be, with the error that rounding may leave."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..models import Model
from .base import Effect, Expected

# Roundings in one sum, one difference and one conversion, generously.
_ROUNDINGS = 16
# Where few clients speak, steps may be refused that are so many times those of most clients.
_LEEWAY = 90.0


def moved(
    rule: str,
    start: np.ndarray,
    effects: Sequence[Effect],
    weights: np.ndarray,
    model: Model,
    dtype: Any,
    contributors: bool = False,
) -> Expected | None:
    """The model after the mean or median of pseudo-gradients, and how far off it may be.

    Args:
        rule: "fedavg" or "median"; others are not known here.
        start: (width,) the model before.
        effects: of n clients.
        weights: (n,) what they say of their sizes.
        model: names the columns.
        dtype: of the project's rows.
        contributors: leave out of every column those that did not send it.
    """
    rows = np.stack([effect.row for effect in effects])
    sent = np.stack([effect.sent for effect in effects]) if contributors else np.ones(rows.shape, bool)
    with np.errstate(over="ignore", invalid="ignore"):
        if rule == "fedavg":
            step, scale = _mean(rows, sent, weights)
        elif rule == "median":
            step, scale = _median(rows, sent)
        else:
            return None
        new = start - step
        rounding = float(np.finfo(dtype).eps) * _ROUNDINGS * (len(rows) + 4)
        tolerance = rounding * (np.abs(start) + scale + np.abs(new)) + 2 * model.eps * np.abs(new)
        most = longest_step(np.abs(rows).max(axis=1))
    tiny = float(np.finfo(dtype).tiny) * 8
    tolerance += np.where(model.whole, 1.0, np.where(model.eps > 1e-4, 1e-6, tiny))
    return Expected(new, tolerance, (np.abs(step) > most) & contributors)


def longest_step(sizes: np.ndarray) -> float:
    """The longest step that must be taken where few clients speak, of the largest that each client sent."""
    sent = np.sort(sizes[sizes > 0])
    return _LEEWAY * float(sent[(len(sent) - 1) // 2]) if len(sent) else 0.0


def _mean(rows: np.ndarray, sent: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    share = sent * weights[:, None]
    total = share.sum(axis=0)
    share = np.divide(share, total, out=np.zeros_like(share), where=total > 0)
    return (share * rows).sum(axis=0), (share * np.abs(rows)).sum(axis=0)


def _median(rows: np.ndarray, sent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if sent.all():
        ordered, n = np.sort(rows, axis=0), len(rows)
        low, high = ordered[(n - 1) // 2], ordered[n // 2]
        return low / 2 + high / 2, np.abs(low) + np.abs(high)
    low, high = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    for column in range(rows.shape[1]):
        ordered = np.sort(rows[sent[:, column], column])
        n = len(ordered)
        if n:
            low[column], high[column] = ordered[(n - 1) // 2], ordered[n // 2]
    return low / 2 + high / 2, np.abs(low) + np.abs(high)
