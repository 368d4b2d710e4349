"""How an attack lies among the benign updates: what the ROP and STRIKE papers report."""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from byzflower.attacks import gradient_skew, majority_size, skewed_majority
from byzflower.numerics.packed_rows import PackedRows, mean_of_contributors
from byzflower.numerics.reductions import gram, mean, products, squared_norms
from byzflower.strategies.safesparse import jaccard, sign_cosines

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


class Similarity(NamedTuple):
    """How alike a round's sparse uploads were (SafeSparse, figures 3 and 4).

    Attributes:
        clients: ids of the n rows.
        jaccard: (n, n) of the masks.
        cosine: (n, n) of the signs, where both clients sent the pack.
    """

    clients: list[int]
    jaccard: NDArray[np.float64]
    cosine: NDArray[np.float64]

    def save(self, folder: Path) -> None:
        """Write jaccard.csv and sign-cosine.csv: a row and a column per client, under their ids."""
        for name, values in (("jaccard", self.jaccard), ("sign-cosine", self.cosine)):
            with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
                table = csv.writer(file)
                table.writerow(["client", *self.clients])
                table.writerows(
                    [client, *row] for client, row in zip(self.clients, values.tolist(), strict=True)
                )

    @classmethod
    def load(cls, folder: Path) -> "Similarity | None":
        """Read what `save` wrote; None where nothing was."""
        tables = []
        for name in ("jaccard", "sign-cosine"):
            path = folder / f"{name}.csv"
            if not path.is_file():
                return None
            with open(path, newline="", encoding="utf-8") as file:
                header, *rows = csv.reader(file)
            tables.append(np.array([[float(value) for value in row[1:]] for row in rows]))
        return cls([int(client) for client in header[1:]], *tables)


def similarity_of(rows: PackedRows, clients: list[int]) -> Similarity:
    """How alike n sparse uploads are."""
    masks = torch.from_numpy(rows.masks)
    return Similarity(clients, jaccard(masks).numpy(), sign_cosines(rows).numpy())


def contributor_shares(masks: NDArray[np.bool_], byzantine: NDArray[np.bool_]) -> NDArray[np.float64]:
    """f_p, the Byzantine share of each pack's contributors: (n, P), (n,) -> (P,), 0 where there are none."""
    everybody: NDArray[np.int64] = masks.sum(axis=0)
    attackers: NDArray[np.int64] = masks[byzantine].sum(axis=0)
    return attackers / np.maximum(everybody, 1)


def vulnerability(
    masks: NDArray[np.bool_], byzantine: NDArray[np.bool_], kept: NDArray[np.bool_]
) -> dict[str, float]:
    """How far the attackers are the majority of single packs (SafeSparse, theorem 1).

    Args:
        masks: (n, P) the packs that each client sent.
        byzantine: (n,) who attacks.
        kept: (n,) whom the defence kept.

    Returns:
        Of f_p, the Byzantine share of pack p's contributors: ``max``, ``mean``, ``above-half`` (share of
        the packs) and ``squares`` (sum of f_p^2), and ``squares-after``, the sum among those kept.
    """
    shares = contributor_shares(masks, byzantine)
    after = contributor_shares(masks[kept], byzantine[kept])
    return {
        "max": float(shares.max(initial=0)),
        "mean": float(shares.mean()),
        "above-half": float((shares > 0.5).mean()),
        "squares": float((shares**2).sum()),
        "squares-after": float((after**2).sum()),
    }


def poisoning(
    rows: PackedRows, sizes: torch.Tensor, byzantine: NDArray[np.bool_], aggregate: torch.Tensor
) -> dict[str, float]:
    """How far the attackers moved the model, and theorem 1's bound (SafeSparse).

    The benign model is what averaging each pack over its benign contributors would have made. The bound
    is one on that average with the attackers' in it; other rules may be below or above.

    Args:
        rows: n sparse pseudo-gradients.
        sizes: (n,) num-examples.
        byzantine: (n,) who attacks.
        aggregate: (d,) what the server applied.

    Returns:
        ``rho``, the squared distance to the benign model; ``bound`` eps^2 sum_p f_p^2 with ``eps`` the
        largest over the packs of the mean distance of an attacker's pack to the benign model's.
    """
    benign = torch.from_numpy(~byzantine)
    ideal = mean_of_contributors(rows, torch.where(benign, sizes, 0.0))
    numbers = {"rho": float(squared_norms(aggregate[None], origin=ideal))}
    attackers = np.flatnonzero(byzantine)
    if len(attackers) == 0:
        return numbers
    theirs, size, spare = rows.take(attackers.tolist()), rows.packs.size, rows.packs.spare
    point = torch.nn.functional.pad(ideal, (0, spare)).reshape(-1, size)

    def work(block: torch.Tensor, packs: slice) -> torch.Tensor:
        norms: torch.Tensor = torch.linalg.vector_norm(block - point[packs], dim=2, dtype=torch.float64)
        return norms

    distances = torch.cat(theirs.map_packs(work), dim=1)
    masks = torch.from_numpy(theirs.masks)
    mean_distance = (distances * masks).sum(dim=0) / masks.sum(dim=0).clamp(min=1)
    eps = float(mean_distance.max())
    squares = float((contributor_shares(rows.masks, byzantine) ** 2).sum())
    return {**numbers, "eps": eps, "bound": eps**2 * squares}


def mean_cosine(rows: torch.Tensor, direction: torch.Tensor) -> float:
    """Mean cosine of (k, d) rows with a direction (d,); a zero vector's cosines are 0."""
    norms = (squared_norms(rows) * squared_norms(direction[None])).sqrt()
    cosines = products(rows, direction)[:, 0] / norms
    return float(cosines.nan_to_num_(nan=0.0).mean())


def principal_plane(rows: torch.Tensor) -> list[list[float]]:
    """Coordinates of (n, d) rows along their two principal components: n pairs.

    Each axis points to its farthest point; where there is no variance all coordinates are 0.
    """
    values, vectors = np.linalg.eigh(gram(rows, origin=mean(rows)).numpy())
    plane = np.zeros((len(rows), 2))
    found = min(2, len(rows))
    plane[:, :found] = (vectors * np.sqrt(values.clip(min=0)))[:, ::-1][:, :2]
    plane *= np.where(plane[np.abs(plane).argmax(axis=0), [0, 1]] < 0, -1, 1)
    coordinates: list[list[float]] = plane.tolist()
    return coordinates


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
    from sklearn.manifold import LocallyLinearEmbedding  # late: it takes a second, for pictures alone

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
