"""What every aggregation rule returns, and how it says that too few clients are left."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from byzflower.threads import map_blocks

_BLOCK_COLUMNS = 1 << 15


class TooFewClients(ValueError):
    """A rule's requirement on n and f does not hold; the message states the inequality."""


@dataclass(frozen=True)
class AggregationResult:
    """Outcome of one aggregation.

    Attributes:
        gradient: (d,) the aggregate.
        selected: boolean (n,), the rows that were kept, for rules that select; else None.
        weights: (n,) the weights of the rows in the aggregate, for rules that weight; else None.
        info: numbers worth recording, e.g. scores' extremes.
    """

    gradient: torch.Tensor
    selected: torch.Tensor | None = None
    weights: torch.Tensor | None = None
    info: Mapping[str, float] = field(default_factory=dict)


def require(condition: bool, rule: str, needs: str, n: int, f: int | None = None) -> None:
    """Raise `TooFewClients` naming the rule, its requirement, n and f, unless `condition` holds."""
    if not condition:
        got = f"n={n}" if f is None else f"n={n}, f={f}"
        raise TooFewClients(f"{rule} needs {needs}, got {got}")


def require_matrix(gradients: torch.Tensor) -> tuple[int, int]:
    """Return (n, d) of a matrix of pseudo-gradients.

    Raises:
        ValueError: not a two-dimensional floating-point tensor.
        TooFewClients: no rows.
    """
    if gradients.ndim != 2 or not gradients.is_floating_point():
        raise ValueError(
            f"gradients must be a floating-point (n, d) tensor, "
            f"got {gradients.dtype} {tuple(gradients.shape)}"
        )
    require(gradients.shape[0] >= 1, "aggregation", "n >= 1", gradients.shape[0])
    return gradients.shape[0], gradients.shape[1]


def check_num_byzantine(num_byzantine: int) -> None:
    """Raise ValueError for a negative f."""
    if num_byzantine < 0:
        raise ValueError(f"num_byzantine must not be negative, got {num_byzantine}")


def weighted_sum(gradients: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Sum of rows with the given weights: (n, d), (n,) -> (d,).

    Rows of weight zero never enter, not even times zero, and no copy of the selected rows is made:
    the work goes by blocks of columns.
    """
    used = (weights != 0).nonzero().squeeze(1)
    share = weights[used].to(gradients.dtype)
    everything = len(used) == len(weights)
    out = torch.empty(gradients.shape[1], dtype=gradients.dtype, device=gradients.device)

    def work(columns: slice) -> None:
        block = gradients[:, columns]
        torch.mv((block if everything else block[used]).T, share, out=out[columns])

    map_blocks(work, gradients.shape[1], _BLOCK_COLUMNS)
    return out
