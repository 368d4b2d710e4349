"""Means, norms and products of the rows of (m, d) tensors.

Summed in float64, by blocks of columns: no copy of the rows, and the same bits on any number of cores.
"""

from collections.abc import Callable, Sequence

import torch

from byzflower.numerics.threads import map_blocks

# Scalars of a block: 2 MiB of float64, so that it stays in cache.
_BLOCK_SCALARS = 1 << 18


def mean(rows: torch.Tensor, keep: Sequence[int] | None = None) -> torch.Tensor:
    """Per coordinate, mean of all rows, or of those to keep: (m, d) -> (d,).

    Keeping all rows gives the same bits as not naming any.
    """
    out = torch.empty_like(rows[0])

    def work(columns: slice) -> None:
        out[columns] = _kept(rows, keep, columns).mean(dim=0)

    map_blocks(work, rows.shape[1], max(1, _BLOCK_SCALARS // len(rows)))
    return out


def mean_and_std(rows: torch.Tensor, keep: Sequence[int] | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Per coordinate, mean and unbiased standard deviation (0 for one row): (m, d) -> (d,), (d,).

    Args:
        rows: (m, d).
        keep: use only these rows.
    """
    centre, std = torch.empty_like(rows[0]), torch.empty_like(rows[0])

    def work(columns: slice) -> None:
        block = _kept(rows, keep, columns)
        middle = block.mean(dim=0)
        centre[columns] = middle
        std[columns] = (block - middle).square_().sum(dim=0).div_(max(len(block) - 1, 1)).sqrt_()

    map_blocks(work, rows.shape[1], max(1, _BLOCK_SCALARS // len(rows)))
    return centre, std


def median(rows: torch.Tensor) -> torch.Tensor:
    """Coordinate-wise median, for even m the mean of the two middle values: (m, d) -> (d,)."""
    m, d = rows.shape
    out = torch.empty(d, dtype=rows.dtype, device=rows.device)

    def work(columns: slice) -> None:
        block = rows[:, columns].T.clone(memory_format=torch.contiguous_format)
        if block.is_cuda:
            block = block.sort(dim=1).values
        else:
            block.numpy().sort(axis=1)  # several times faster than torch's
        out[columns] = block[:, (m - 1) // 2 : m // 2 + 1].double().mean(dim=1)

    map_blocks(work, d, max(1, _BLOCK_SCALARS // m))
    return out


def products(
    rows: torch.Tensor, *directions: torch.Tensor, origin: torch.Tensor | None = None
) -> torch.Tensor:
    """Inner products of the rows minus `origin` with k directions: (m, d), (d,)... -> float64 (m, k)."""

    def work(columns: slice) -> torch.Tensor:
        block = _centred(rows, origin, columns)
        return block @ torch.stack([v[columns].double() for v in directions]).T

    return _sum_of_blocks(work, rows)


def gram(rows: torch.Tensor, *directions: torch.Tensor, origin: torch.Tensor) -> torch.Tensor:
    """Gram matrix of the rows minus `origin`, followed by k directions as they are.

    Returns:
        float64 (m + k, m + k).
    """

    def work(columns: slice) -> torch.Tensor:
        block = torch.cat([_centred(rows, origin, columns), *(v[columns].double()[None] for v in directions)])
        return block @ block.T

    return _sum_of_blocks(work, rows)


def squared_norms(rows: torch.Tensor, origin: torch.Tensor | None = None) -> torch.Tensor:
    """Squared norms of the rows minus `origin`: (m, d) -> float64 (m,)."""

    def work(columns: slice) -> torch.Tensor:
        return _centred(rows, origin, columns).square().sum(dim=1)

    return _sum_of_blocks(work, rows)


def dot(one: torch.Tensor, other: torch.Tensor) -> float:
    """Inner product of two vectors."""
    return float(products(one[None], other))


def squared_distances(products: torch.Tensor) -> torch.Tensor:
    """Squared distances between vectors, from their Gram matrix: (m, m) -> (m, m)."""
    norms = products.diagonal()
    return (norms[:, None] + norms[None, :] - 2 * products).clamp_(min=0).fill_diagonal_(0)


def _kept(rows: torch.Tensor, keep: Sequence[int] | None, columns: slice) -> torch.Tensor:
    block = rows[:, columns]
    return (block if keep is None else block[list(keep)]).double()


def _centred(rows: torch.Tensor, origin: torch.Tensor | None, columns: slice) -> torch.Tensor:
    block = rows[:, columns].double()
    return block if origin is None else block - origin[columns]


def _sum_of_blocks(work: Callable[[slice], torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
    m, d = rows.shape
    first, *others = map_blocks(work, d, max(1, _BLOCK_SCALARS // m))
    for other in others:
        first += other
    return first
