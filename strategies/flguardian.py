"""FLGuardian: trust from how often a client is in the benign cluster of a layer."""

from collections.abc import Sequence

import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from byzflower.numerics.rows import Rows
from byzflower.numerics.threads import one_thread
from byzflower.strategies.base import RobustStrategy
from byzflower.strategies.layers import split_layers
from byzflower.strategies.result import AggregationResult, Gradients, average, require


@one_thread()
def flguardian(gradients: Gradients, layers: Sequence[slice] = ()) -> AggregationResult:
    """Average the rows that are most often among the benign of a layer (Zhou et al., 2025).

    SafeSparse, whose description this follows, leaves the details open. Here, in every layer, the rows are
    split into two clusters by average linkage on the sum of cosine and Euclidean distances, each divided by
    its mean; the larger cluster (of equal ones the more compact) is the benign one. A row's trust is the
    number of layers in which it was benign. The most trusted majority is averaged: the n//2 + 1 most trusted
    rows and all of the same trust as the last of them.

    Args:
        gradients: (n, d) pseudo-gradients.
        layers: columns of each layer, covering all; default one layer.

    Returns:
        The aggregate, the rows kept, their weights, and the extremes of trust as shares of the layers.

    Raises:
        TooFewClients: n < 2.
        ValueError: the layers do not cover the columns.
    """
    rows = Rows.of(gradients)
    require(rows.n >= 2, "FLGuardian", "n >= 2", rows.n)
    parts = split_layers(rows, layers)
    trust = torch.stack([_benign(part) for part in parts]).double().mean(dim=0)
    selected = trust >= trust.sort(descending=True).values[rows.n // 2]
    info = {"least_trust": float(trust.min()), "greatest_trust": float(trust.max())}
    return average(rows, selected, info=info)


def _benign(layer: Rows) -> torch.Tensor:
    """Boolean (n,): the rows in the benign cluster of one layer."""
    distances = _unit_mean(layer.squared_distances.sqrt()) + _unit_mean(_cosine_distances(layer))
    tree = linkage(squareform(distances.cpu().numpy(), checks=False), "average")
    labels = torch.from_numpy(fcluster(tree, 2, "maxclust")).to(distances.device)
    clusters: list[torch.Tensor] = [labels == label for label in sorted(set(labels.tolist()))]

    def rank(cluster: torch.Tensor) -> tuple[int, float]:
        return -int(cluster.sum()), float(distances[cluster][:, cluster].sum())

    return min(clusters, key=rank)


def _unit_mean(distances: torch.Tensor) -> torch.Tensor:
    mean = distances.mean()
    return distances / mean if mean > 0 else distances


def _cosine_distances(rows: Rows) -> torch.Tensor:
    """1 - cosine, from squared distances and norms; 1 where a row is zero, 0 on the diagonal.

    1 - cos = (|x - y|^2 - (|x| - |y|)^2) / (2 |x| |y|) loses nothing where rows are close.
    """
    norms = rows.squared_norms.sqrt()
    scale = 2 * norms[:, None] * norms[None, :]
    apart = rows.squared_distances - (norms[:, None] - norms[None, :]) ** 2
    distances: torch.Tensor = torch.where(scale > 0, apart.clamp(min=0) / scale, 1.0).fill_diagonal_(0)
    return distances


class FLGuardian(RobustStrategy):
    """Mean of the uploads that are most often in the larger of two clusters of a layer."""

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `flguardian` to the model's layers."""
        return flguardian(gradients, self.layers)
