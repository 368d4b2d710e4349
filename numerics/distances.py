"""Accurate pairwise squared distances for about the price of one Gram product."""

import math
from collections.abc import Callable, Iterable
from functools import partial

import torch

from byzflower.numerics.threads import Scratch, map_blocks, subnormals_as_zero

Block = Callable[[slice], torch.Tensor]

_BLOCK_COLUMNS = 1 << 13
_BLOCKS_PER_TASK = 4
# Differences of this many columns stay in the L1 and L2 caches, and their float32 sums are accurate.
_DIFFERENCE_COLUMNS = 1 << 9
# Columns that are sampled to find a row near the median.
_SAMPLE_COLUMNS = 1 << 8
# Columns whose squares are summed in float32.
_SUMMED_COLUMNS = 1 << 9
_SHORT = 1e-15
# Below this ratio of a squared distance to the squared norms it was computed from, float32 products
# have lost too many digits: 1e-7 relative error of a product, 1e-6 asked of a distance.
_CANCELLATION = 0.05
# The same for sums of distances, whose errors are smaller and partly cancel.
_MIXED_CANCELLATION = 0.01


def finite_or_wide(
    compute: Callable[[torch.Tensor], torch.Tensor], block: torch.Tensor, wide: bool = False
) -> torch.Tensor:
    """`compute(block)`, repeated in float64 if it overflows (squares of values beyond 1e19); or if `wide`."""
    result = compute(block.double() if wide else block)
    return result if math.isfinite(result.sum()) else compute(block.double())


def squared_lengths(values: torch.Tensor) -> torch.Tensor:
    """Squared norms of the rows (n, c): float64 (n,), summed in float32 over a few columns at a time.

    Rows whose squares would overflow or underflow float32 are summed in float64.
    """
    own = torch.promote_types(values.dtype, torch.float32)
    values = values if values.stride(1) == 1 else values.contiguous()  # else torch sums one by one
    tail = values.shape[1] % _SUMMED_COLUMNS
    whole = values[:, : values.shape[1] - tail].view(len(values), -1, _SUMMED_COLUMNS)
    norms = torch.linalg.vector_norm(whole, dim=2, dtype=own)
    if tail:
        norms = torch.cat([norms, torch.linalg.vector_norm(values[:, -tail:], dim=1, dtype=own)[:, None]], 1)
    squares: torch.Tensor = norms.double().square_().sum(dim=1)
    shortest, longest = norms.aminmax()
    if not _SHORT < shortest <= longest < math.inf:
        extreme = ~((norms > _SHORT) & (norms < torch.inf)).all(dim=1)
        squares[extreme] = torch.linalg.vector_norm(values[extreme], dim=1, dtype=torch.float64).square_()
    return squares


def squared_distances(block: Block, n: int, d: int, device: torch.device) -> torch.Tensor:
    """Squared Euclidean distances between n rows of d scalars: float64 (n, n), zero diagonal.

    The error of ||x||^2 + ||y||^2 - 2<x, y> grows with the norms, so rows are taken relative to a central
    one, and products are summed over blocks of columns in float64. Pairs much closer to each other than to
    that origin are computed again from their differences, which costs twice as much if it is all pairs. So
    distances of 1e-6 between rows of size 1, also beside rows of size 1e19, are accurate, and no arrangement
    of rows takes more than two passes. Never negative.

    Args:
        block: gives the (n, c) values of some columns.
        n: number of rows.
        d: number of columns.
        device: of the blocks.
    """
    origin = _central(block(slice(0, d, max(1, -(-d // _SAMPLE_COLUMNS)))))
    gram_of = partial(_gram, origin, Scratch())
    [gram] = _sum_over_blocks(block, d, lambda values: [finite_or_wide(gram_of, values)])
    distances, unreliable = _from_gram(gram, origin)
    groups = _groups(unreliable)
    if groups:
        for rows, among in zip(groups, _by_differences(block, d, groups), strict=True):
            distances[rows[:, None], rows[None, :]] = among
    return distances


def _central(sample: torch.Tensor) -> int:
    """Index of the row nearest to the coordinate-wise median, judged by a sample of the columns."""
    away = sample.double() - sample.median(dim=0).values
    return int(away.square_().sum(dim=1).argmin())


def _gram(origin: int, scratch: Scratch, values: torch.Tensor) -> torch.Tensor:
    """Gram matrix of the rows, with one of them as the origin."""
    values = torch.sub(values, values[origin], out=scratch.like(values))
    return values @ values.T


def _from_gram(gram: torch.Tensor, origin: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared distances, and which of them suffer from cancellation, from a Gram matrix about a row."""
    norms = gram.diagonal().clone()
    total = norms[:, None] + norms[None, :]
    among = _symmetric((total - 2 * gram).clamp_(min=0))
    # The origin's own distances are sums of squares: exact.
    among[origin], among[:, origin] = norms, norms
    unreliable = among < _CANCELLATION * total
    unreliable[origin] = unreliable[:, origin] = False
    return among, unreliable.fill_diagonal_(False)


def _symmetric(distances: torch.Tensor) -> torch.Tensor:
    """Mirror the lower triangle: products are symmetric only up to rounding, but both distances must tie."""
    lower = distances.tril(-1)
    return lower + lower.T


def _by_differences(block: Block, d: int, groups: list[torch.Tensor]) -> list[torch.Tensor]:
    """Squared distances within each group of rows, in one pass."""

    def work(values: torch.Tensor) -> list[torch.Tensor]:
        starts = range(0, values.shape[1], _DIFFERENCE_COLUMNS)
        parts = (values[:, start : start + _DIFFERENCE_COLUMNS] for start in starts)
        return _sums([finite_or_wide(_pairwise, part[rows]) for rows in groups] for part in parts)

    sums = _sum_over_blocks(block, d, work)
    return [_square(pairs, len(rows)) for pairs, rows in zip(sums, groups, strict=True)]


def _pairwise(values: torch.Tensor) -> torch.Tensor:
    """Squared distances of rows 0 and 1, 0 and 2, ... in float64."""
    return torch.nn.functional.pdist(values).double().square_()


def _square(pairs: torch.Tensor, k: int) -> torch.Tensor:
    """The symmetric (k, k) matrix of the pairs that `_pairwise` returns."""
    matrix = pairs.new_zeros(k, k)
    i, j = torch.triu_indices(k, k, 1, device=pairs.device)
    matrix[i, j] = matrix[j, i] = pairs
    return matrix


def _sum_over_blocks(
    block: Block, d: int, work: Callable[[torch.Tensor], list[torch.Tensor]]
) -> list[torch.Tensor]:
    """Sum of `work(block)` over all blocks of columns, in float64 and always in the same order."""

    @subnormals_as_zero()
    def task(columns: slice) -> list[torch.Tensor]:
        starts = range(columns.start, columns.stop, _BLOCK_COLUMNS)
        parts = (work(block(slice(start, min(start + _BLOCK_COLUMNS, columns.stop)))) for start in starts)
        return _sums(parts)

    return _sums(map_blocks(task, d, _BLOCKS_PER_TASK * _BLOCK_COLUMNS))


def _sums(parts: Iterable[list[torch.Tensor]]) -> list[torch.Tensor]:
    totals: list[torch.Tensor] = []
    for part in parts:
        if not totals:
            totals = [one.double() for one in part]
        else:
            for total, one in zip(totals, part, strict=True):
                total += one
    return totals


def _groups(linked: torch.Tensor) -> list[torch.Tensor]:
    """Connected components, of at least two rows, of a symmetric boolean matrix."""
    todo = linked.any(dim=1)
    groups = []
    while todo.any():
        member = torch.zeros_like(todo)
        member[todo.nonzero()[0, 0]] = True
        while True:
            grown = member | linked[member].any(dim=0)
            if torch.equal(grown, member):
                break
            member = grown
        groups.append(member.nonzero().squeeze(1))
        todo &= ~member
    return groups


# -- from distances alone ------------------------------------------------------------------------------


def nearest_rows(distances: torch.Tensor, count: int) -> torch.Tensor:
    """Indices (n, count) of the nearest rows of each, itself first; ties go to the lower index."""
    return distances.clone().fill_diagonal_(-1).sort(dim=1, stable=True).indices[:, :count]


def with_point(distances: torch.Tensor, to_point: torch.Tensor) -> torch.Tensor:
    """Append one more point: (n, n) squared distances and its (n,) ones to the others -> (n+1, n+1)."""
    n = len(distances)
    extended = distances.new_zeros(n + 1, n + 1)
    extended[:n, :n] = distances
    extended[n, :n] = extended[:n, n] = to_point
    return extended


def distances_to_mixture(distances: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Squared distances from every point to sum_j weights_j x_j, where the weights sum to 1.

    Args:
        distances: (n, n) squared distances between the points.
        weights: (n,).
    """
    to_points = distances @ weights
    return (to_points - weights @ to_points / 2).clamp_(min=0)


def gram_about_mixture(distances: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Gram matrix of the points minus sum_j weights_j x_j, where the weights sum to 1.

    A point of weight zero has no influence on the products of the others, however far away it is.

    Args:
        distances: (..., n, n) squared distances between the points.
        weights: (n,) or (..., n).
    """
    to_points = (distances @ weights.unsqueeze(-1)).squeeze(-1)
    about = to_points - (weights * to_points).sum(-1, keepdim=True) / 2
    return (about.unsqueeze(-1) + about.unsqueeze(-2) - distances) / 2


def mixed_distances(distances: torch.Tensor, mixing: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """Squared distances between the rows of W X, from those of X, and whether they are accurate.

    With c = W_i - W_j, which sums to zero, the distance is -c'Dc/2. What two rows share drops out of c and
    causes no error; the remaining terms may cancel.

    Args:
        distances: (m, m) squared distances D between the rows of X.
        mixing: (n, m) W, rows of equal sums.
    """
    n = len(mixing)
    mixed, reliable = distances.new_zeros(n, n), True
    for i in range(1, n):
        difference = mixing[:i] - mixing[i]
        size = difference.abs()
        value = -((difference @ distances) * difference).sum(1) / 2
        terms = ((size @ distances) * size).sum(1) / 2
        reliable &= bool((value >= _MIXED_CANCELLATION * terms).all())
        mixed[i, :i] = value.clamp_(min=0)
    return _symmetric(mixed), reliable
