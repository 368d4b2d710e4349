"""How an attack lies among the benign updates: what the ROP and STRIKE papers report."""

import numpy as np
import torch
from sklearn.manifold import LocallyLinearEmbedding

from byzflower.attacks import gradient_skew, majority_size, skewed_majority
from byzflower.attacks.rows import gram, mean, products, squared_norms

# Fewer points than these have no shape.
SMALLEST_PICTURE = 4


def diagnose(
    benign: torch.Tensor,
    byzantine: torch.Tensor,
    previous: torch.Tensor | None,
    aggregate: torch.Tensor | None,
    size: int | None = None,
) -> dict[str, float]:
    """Measure one round.

    Args:
        benign: (m, d) benign pseudo-gradients, m >= 1.
        byzantine: (f, d) what the Byzantine clients uploaded.
        previous: (d,) what the server applied in the round before, if there was one.
        aggregate: (d,) what it applied in this round, if it did.
        size: of the skewed majority; default n - 2f.

    Returns:
        What can be said of

        * ``cos-attack-mean``, ``cos-attack-previous``: mean cosine of the attackers' uploads with the
          benign mean and with the previous aggregate (ROP, tables II and III).
        * ``cos-benign-previous``: mean cosine of the benign uploads with the previous aggregate.
        * ``perturbation``: mean norm of the attackers' uploads minus the benign mean.
        * ``skew``: gamma of the benign uploads (STRIKE, definition 2), where n - 2f >= 1.
        * ``error``: distance of the aggregate from the benign mean.
    """
    m, f = len(benign), len(byzantine)
    mu = mean(benign)
    numbers = {}
    if f:
        numbers["cos-attack-mean"] = mean_cosine(byzantine, mu)
        numbers["perturbation"] = float(squared_norms(byzantine, origin=mu).sqrt().mean())
    if previous is not None:
        previous = previous.to(mu)
        numbers["cos-benign-previous"] = mean_cosine(benign, previous)
        if f:
            numbers["cos-attack-previous"] = mean_cosine(byzantine, previous)
    if m > f:
        numbers["skew"] = gradient_skew(benign, majority_size(m, m + f, f) if size is None else size)
    if aggregate is not None:
        numbers["error"] = float(squared_norms(aggregate[None], origin=mu).sqrt())
    return numbers


def mean_cosine(rows: torch.Tensor, direction: torch.Tensor) -> float:
    """Mean cosine of (k, d) rows with a direction (d,); a zero vector's cosines are 0."""
    norms = (squared_norms(rows) * squared_norms(direction[None])).sqrt()
    cosines = products(rows, direction)[:, 0] / norms
    return float(cosines.nan_to_num_(nan=0.0).mean())


def embed(benign: torch.Tensor, size: int) -> dict[str, list[list[float]] | list[float] | list[int]]:
    """Lay benign updates and their mean out in the plane, to see their skew (STRIKE, figure 4).

    Locally linear embedding (Roweis and Saul, 2000) from the nearest tenth of the rows, as in STRIKE's
    appendix A; from 3 at least. It is told only the rows' distances, so that it takes as long for large
    models as for small ones. Each axis points to its farthest point.

    Args:
        benign: (m, d) benign pseudo-gradients, m >= `SMALLEST_PICTURE`.
        size: of the skewed majority.

    Returns:
        ``points`` (m, 2), ``mean`` (2,), and the positions of the ``majority``.
    """
    m, mu = len(benign), mean(benign)
    inner = gram(torch.cat([benign, mu[None]]), origin=mu)
    values, vectors = np.linalg.eigh(inner.numpy())
    isometric = vectors * np.sqrt(values.clip(min=0))
    neighbours = min(m, max(3, round(0.1 * m)))
    lle = LocallyLinearEmbedding(n_neighbors=neighbours, n_components=2, eigen_solver="dense")
    plane = lle.fit_transform(isometric)
    plane *= np.sign(plane[np.abs(plane).argmax(axis=0), [0, 1]])
    return {
        "points": plane[:m].tolist(),
        "mean": plane[m].tolist(),
        "majority": skewed_majority(benign, size),
    }
