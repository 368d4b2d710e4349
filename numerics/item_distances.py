"""Distances between the rows of each item: from products where they are accurate, else from differences."""

import torch

# Below this ratio of a squared distance to a row's squared norm, float64 products have lost too many
# digits: a product has a relative error of 1e-15, a distance should have 1e-7.
_CANCELLATION = 1e-8
# If more than this share of the pairs is that close, all are computed from differences.
_MANY = 1 / 8


class ItemDistances:
    """Squared distances between the c rows of each of b items, some of the rows at a time.

    Rows that equal an earlier one of their item (attackers often send identical rows) share its distances:
    only the first of them, the leader, is computed.

    Attributes:
        leaders: (b, u) indices of the leaders, u the largest number of an item.
    """

    def __init__(self, values: torch.Tensor) -> None:
        """Find the leaders.

        Args:
            values: (b, c, d) finite rows.
        """
        self._values = values.double()
        self._squares = self._values.square().sum(dim=2)
        self._first = _first_twins(self._values, self._squares)
        leads = self._first == torch.arange(self._first.shape[1])
        count = int(leads.sum(dim=1).max())
        self.leaders = leads.int().argsort(dim=1, descending=True, stable=True)[:, :count]
        self._twins = count < leads.shape[1]

    def of(self, part: slice) -> torch.Tensor:
        """Squared distances (b, p, c) of some leaders to all rows, float64; inf to themselves, 0 to twins."""
        leaders = self.leaders[:, part]
        own = self._values.gather(1, leaders[:, :, None].expand(-1, -1, self._values.shape[2]))
        squares = self._squares.gather(1, leaders)[:, :, None]
        distances = torch.baddbmm(self._squares[:, None], own, self._values.mT, alpha=-2).add_(squares)
        itself = leaders[:, :, None]
        distances.scatter_(2, itself, torch.inf)
        close = distances < _CANCELLATION * squares
        if self._twins:
            same = self._first.gather(1, leaders)[:, :, None] == self._first[:, None]
            close &= ~same
            distances.masked_fill_(same, 0).scatter_(2, itself, torch.inf)
        many = int(close.count_nonzero())
        if many > _MANY * close.numel():
            exact = torch.cdist(own, self._values, compute_mode="donot_use_mm_for_euclid_dist")
            return exact.square_().scatter_(2, itself, torch.inf)
        if many:
            item, row, other = close.nonzero(as_tuple=True)
            apart = own[item, row] - self._values[item, other]
            distances[close] = apart.square_().sum(dim=1)
        return distances

    def of_all(self, leaders: torch.Tensor) -> torch.Tensor:
        """Copy values of the leaders to their twins: (b, u) -> (b, c)."""
        known = torch.empty(self._first.shape, dtype=leaders.dtype).scatter_(1, self.leaders, leaders)
        return known.gather(1, self._first)


def _first_twins(values: torch.Tensor, squares: torch.Tensor) -> torch.Tensor:
    """Index of the first of the c rows that equals each row, its own if none does: (b, c).

    Different rows of equal norm may hide a match between them, which costs time but not accuracy.
    """
    ascending, order = squares.sort(dim=1, stable=True)
    places = torch.arange(squares.shape[1]).expand_as(order)
    begins = torch.ones_like(ascending, dtype=torch.bool)
    begins[:, 1:] = ascending[:, 1:] != ascending[:, :-1]
    leader = order.gather(1, (places * begins).cummax(dim=1).values)
    first = torch.empty_like(order).scatter_(1, order, leader)
    leaders = values.gather(1, first[:, :, None].expand_as(values))
    return torch.where((values == leaders).all(dim=2), first, places)
