"""Distances among the rows of each item: by products where that is exact enough, by differences elsewhere."""

import torch

# Below this ratio of a squared distance to a row's squared norm, float64 products have lost too many
# digits: 1e-15 relative error of a product, 1e-7 asked of a distance.
_CANCELLATION = 1e-8
# If more than this share of the pairs is that close, all are computed by differences.
_MANY = 1 / 8


class ItemDistances:
    """Squared distances among c rows of each of b items, for some of the rows at a time."""

    def __init__(self, values: torch.Tensor) -> None:
        """Prepare what all pairs need.

        Args:
            values: (b, c, d) finite rows.
        """
        self._values = values.double()
        self._squares = self._values.square().sum(dim=2)
        self._twins = _first_twins(self._values, self._squares)

    def of(self, part: slice) -> torch.Tensor:
        """Squared distances (b, p, c) of some rows to all, float64; inf to themselves, 0 to equal rows."""
        own, squares = self._values[:, part], self._squares[:, part, None]
        distances = torch.baddbmm(self._squares[:, None], own, self._values.mT, alpha=-2).add_(squares)
        _set_diagonal(distances, part.start, torch.inf)
        close = distances < _CANCELLATION * squares
        if self._twins is not None:
            same = self._twins[:, part, None] == self._twins[:, None]
            close &= ~same
            distances.masked_fill_(same, 0)
            _set_diagonal(distances, part.start, torch.inf)
        many = int(close.count_nonzero())
        if many > _MANY * close.numel():
            exact = torch.cdist(own, self._values, compute_mode="donot_use_mm_for_euclid_dist")
            distances = exact.square_()
            _set_diagonal(distances, part.start, torch.inf)
        elif many:
            item, row, other = close.nonzero(as_tuple=True)
            apart = own[item, row] - self._values[item, other]
            distances[close] = apart.square_().sum(dim=1)
        return distances


def _set_diagonal(distances: torch.Tensor, start: int, value: float) -> None:
    distances[:, :, start:].diagonal(dim1=1, dim2=2).fill_(value)


def _first_twins(values: torch.Tensor, squares: torch.Tensor) -> torch.Tensor | None:
    """Of each of c rows the number of the first that equals it, (b, c); None if all rows are different.

    Rows with equal norms that differ may keep equal ones apart, which costs time but no exactness.
    """
    ascending, order = squares.sort(dim=1, stable=True)
    places = torch.arange(squares.shape[1]).expand_as(order)
    begins = torch.ones_like(ascending, dtype=torch.bool)
    begins[:, 1:] = ascending[:, 1:] != ascending[:, :-1]
    leader = order.gather(1, (places * begins).cummax(dim=1).values)
    first = torch.empty_like(order).scatter_(1, order, leader)
    leaders = values.gather(1, first[:, :, None].expand_as(values))
    first = torch.where((values == leaders).all(dim=2), first, places)
    return first if (first != places).any() else None
