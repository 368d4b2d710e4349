"""FedSign: excludes clients whose signs are suspiciously similar."""

import torch

from byzflower.numerics.rows import Rows
from byzflower.strategies.base import RobustStrategy
from byzflower.strategies.result import AggregationResult, Gradients, average, require


def fedsign(gradients: Gradients, weights: torch.Tensor | None = None) -> AggregationResult:
    """Average the rows of at most mean attack density (FedSign; Guo et al., 2023).

    As SafeSparse describes it. A row's signature is its signs. SafeSparse does not say how density follows
    from the cosine similarity of signatures; as FedSign is after clients that one adversary directs, and who
    are more alike than independent ones, here it is a row's mean cosine similarity to the others, in
    [-1, 1]. Equality keeps a row, so that nobody is dropped if all are equally alike.

    Args:
        gradients: (n, d) pseudo-gradients.
        weights: (n,) weights of the final average, default uniform. Selection ignores them.

    Returns:
        The aggregate, the rows kept, their weights, and the extremes of density.

    Raises:
        TooFewClients: n < 2.
    """
    rows = Rows.of(gradients)
    n = rows.n
    require(n >= 2, "FedSign", "n >= 2", n)
    density = _attack_density(rows)
    # Rows that are equally similar must not be separated by rounding.
    selected = density <= density.mean() + 1e-12
    info = {"least_density": float(density.min()), "greatest_density": float(density.max())}
    return average(rows, selected, weights, info)


def _attack_density(rows: Rows) -> torch.Tensor:
    def agreement(block: torch.Tensor, columns: slice) -> torch.Tensor:
        signs = block.sign()
        return signs @ signs.T  # whole numbers: exact

    agreements = rows.total(agreement)
    sizes = agreements.diagonal().sqrt()
    scale = sizes[:, None] * sizes[None, :]
    cosines = torch.where(scale > 0, agreements / scale, 0.0).fill_diagonal_(0)
    return cosines.sum(dim=1) / (rows.n - 1)


class FedSign(RobustStrategy):
    """Mean, weighted by num-examples, of the uploads whose signs are least like the others'."""

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `fedsign`."""
        return fedsign(gradients, weights)
