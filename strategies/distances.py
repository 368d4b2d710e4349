"""Pairwise squared distances that keep their order, at the price of about one Gram product."""

import torch

from byzflower.threads import map_blocks

_BLOCK_COLUMNS = 1 << 12
_BLOCKS_PER_TASK = 8
# Below this ratio of a squared distance to the squared norms it was computed from, float32 products
# have lost too many digits: 1e-7 relative error of a product, 1e-6 asked of a distance.
_CANCELLATION = 0.05


def squared_distances(gradients: torch.Tensor) -> torch.Tensor:
    """Squared Euclidean distances between all rows: (n, d) -> float64 (n, n), zero diagonal.

    ||x||^2 + ||y||^2 - 2<x, y> is only as exact as the norms are small, so rows are taken relative to
    one of them; products are summed over blocks of columns in float64. Rows that turn out to be much
    closer to each other than to that origin are done again relative to one of their own, so that
    distances of 1e-6 between rows of size 1, or beside rows of size 1e19, are right. Never negative.
    """
    n = gradients.shape[0]
    distances = torch.zeros(n, n, dtype=torch.float64, device=gradients.device)
    pending = [torch.arange(n, device=gradients.device)]
    while pending:
        rows = pending.pop()
        block, unreliable = _distances_from(gradients, rows)
        distances[rows[:, None], rows[None, :]] = block
        pending += [rows[group] for group in _groups(unreliable)]
    return distances


def _distances_from(gradients: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Distances among `rows` relative to the first of them, and which pairs lost their digits."""
    gram, norms = _centred_gram(gradients, rows)
    total = norms[:, None] + norms[None, :]
    # A matrix product is symmetric only up to rounding; mutual neighbours must tie exactly.
    block = (total - 2 * gram).clamp_(min=0).tril_(-1)
    block += block.T.clone()
    # The origin's own distances are sums of squares: exact.
    block[0], block[:, 0] = norms, norms
    unreliable = block < _CANCELLATION * total
    unreliable[0] = unreliable[:, 0] = False
    unreliable.fill_diagonal_(False)
    return block, unreliable


def _centred_gram(gradients: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Gram matrix and squared norms, in float64, of `rows` minus their first."""
    k, d = len(rows), gradients.shape[1]
    everything = k == len(gradients)

    def work(columns: slice) -> torch.Tensor:
        total = torch.zeros(k, k, dtype=torch.float64, device=gradients.device)
        for start in range(columns.start, columns.stop, _BLOCK_COLUMNS):
            block = gradients[:, start : min(start + _BLOCK_COLUMNS, columns.stop)]
            block = block if everything else block[rows]
            block = block - block[0]
            product = block @ block.T
            if not torch.isfinite(product).all():  # rows beyond 1e19: their squares need float64
                block = block.double()
                product = block @ block.T
            total += product
        return total

    gram = torch.zeros(k, k, dtype=torch.float64, device=gradients.device)
    for total in map_blocks(work, d, _BLOCKS_PER_TASK * _BLOCK_COLUMNS):
        gram += total
    return gram, gram.diagonal().clone()


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
