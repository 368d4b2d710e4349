"""Splitting rows into the model's layers, and combining layers."""

from collections.abc import Sequence

import torch

from byzflower.numerics.rows import Rows
from byzflower.strategies.result import AggregationResult, check


def split_layers(rows: Rows, layers: Sequence[slice]) -> list[Rows]:
    """The rows of each layer, in order; all columns are one layer if there are none given.

    Args:
        rows: n rows.
        layers: contiguous columns of each layer, ascending.

    Raises:
        ValueError: the layers do not cover the columns one after the other.
    """
    if not layers:
        return [rows]
    ends = [0, *(layer.stop for layer in layers)]
    joined = ends[-1] == rows.d and all(a == b.start for a, b in zip(ends, layers, strict=False))
    check(joined, f"layers must cover {rows.d} columns one after the other", list(layers))
    return [rows.part(layer) for layer in layers]


def combine_layers(parts: Sequence[Rows], weights: Sequence[torch.Tensor]) -> AggregationResult:
    """Combine each layer with weights of its own.

    Args:
        parts: the layers' rows, in order.
        weights: (n,) for each layer.

    Returns:
        The aggregate (d,), the rows used in any layer, and their weights averaged over columns.
    """
    pairs = list(zip(parts, weights, strict=True))
    share = torch.stack([w * part.d for part, w in pairs]).sum(dim=0) / sum(part.d for part in parts)
    return AggregationResult(torch.cat([part.combine(w) for part, w in pairs]), share > 0, share)
