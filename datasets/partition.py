"""How a training set is split among clients: every sample exactly once."""

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
_REDRAWS = 20


def partition_iid(labels: Indices, num_clients: int, random: np.random.Generator) -> list[Indices]:
    """Split at random into parts that differ by at most one in size."""
    return [np.sort(part) for part in np.array_split(random.permutation(len(labels)), num_clients)]


def partition_dirichlet(
    labels: Indices,
    num_clients: int,
    random: np.random.Generator,
    alpha: float = 0.5,
    min_size: int = 1,
) -> list[Indices]:
    """For each class c, draw q_c ~ Dir_n(alpha) and give client i a (q_c)_i share of the class.

    The procedure of STRIKE's appendix D.1 (after Yurochkin et al., 2019). Draws that leave a client with
    fewer than `min_size` samples are repeated; if that does not help, the smallest clients are filled
    up from the largest.

    Args:
        labels: (m,) of the training set.
        num_clients: n.
        random: the draws.
        alpha: concentration, positive; lower is less balanced.
        min_size: fewest samples of any client; n * min_size must not exceed m.
    """
    if not 0 < alpha < np.inf:
        raise ValueError(f"alpha must be positive and finite, got {alpha}")
    _require_enough(len(labels), num_clients, min_size)
    best: list[Indices] = []
    for _ in range(_REDRAWS):
        parts = _draw_dirichlet(labels, num_clients, random, alpha)
        if not best or min(map(len, parts)) > min(map(len, best)):
            best = parts
        if min(map(len, best)) >= min_size:
            return best
    return _fill_up(best, min_size, random)


def partition_natural(
    groups: Indices, num_clients: int, random: np.random.Generator, min_size: int = 1
) -> list[Indices]:
    """Let every client be one of the natural clients, drawn at random without repetition.

    Who is not drawn, or has fewer than `min_size` samples, takes no part.

    Args:
        groups: (m,) the natural client of each sample.
        num_clients: n.
        random: the draw; all are taken in ascending order if there are exactly n.
        min_size: fewest samples of any client.

    Raises:
        ValueError: fewer than n natural clients are large enough.
    """
    names, sizes = np.unique(groups, return_counts=True)
    large = names[sizes >= min_size]
    if len(large) < num_clients:
        raise ValueError(
            f"{len(large)} natural clients have at least {min_size} samples, {num_clients} are needed"
        )
    drawn = set(np.sort(random.choice(large, num_clients, replace=False)).tolist())
    order = np.argsort(groups, kind="stable")
    ends = np.cumsum(sizes)[:-1]
    return [
        np.sort(part) for name, part in zip(names, np.split(order, ends), strict=True) if int(name) in drawn
    ]


def _require_enough(samples: int, num_clients: int, min_size: int) -> None:
    if num_clients * min_size > samples:
        raise ValueError(f"{samples} samples cannot give {num_clients} clients at least {min_size} each")


def _draw_dirichlet(
    labels: Indices, num_clients: int, random: np.random.Generator, alpha: float
) -> list[Indices]:
    parts: list[list[Indices]] = [[] for _ in range(num_clients)]
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        shares = random.dirichlet(np.full(num_clients, alpha))
        cuts = np.rint(np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
        for part, piece in zip(parts, np.split(members, cuts), strict=True):
            part.append(piece)
    return [np.sort(np.concatenate(part)) for part in parts]


def _fill_up(parts: list[Indices], min_size: int, random: np.random.Generator) -> list[Indices]:
    parts = list(parts)
    for i in range(len(parts)):
        while len(parts[i]) < min_size:
            donor = max(range(len(parts)), key=lambda j: len(parts[j]))
            spare = min(len(parts[donor]) - min_size, min_size - len(parts[i]))
            given = random.choice(parts[donor], spare, replace=False)
            parts[donor] = np.setdiff1d(parts[donor], given)
            parts[i] = np.union1d(parts[i], given)
    return parts


def partition_shards(
    labels: Indices, num_clients: int, random: np.random.Generator, shards_per_client: int = 2
) -> list[Indices]:
    """Sort by label, cut into n * `shards_per_client` shards and deal them out (McMahan et al., 2017)."""
    if shards_per_client < 1:
        raise ValueError(f"shards_per_client must be at least 1, got {shards_per_client}")
    by_label = np.argsort(labels, kind="stable")
    shards = np.array_split(by_label, num_clients * shards_per_client)
    dealt = random.permutation(len(shards)).reshape(num_clients, shards_per_client)
    return [np.sort(np.concatenate([shards[j] for j in own])) for own in dealt]


def make_partition(
    scheme: str,
    labels: Indices,
    num_clients: int,
    random: np.random.Generator,
    alpha: float = 0.5,
    shards_per_client: int = 2,
    min_size: int = 1,
) -> list[Indices]:
    """Split by the scheme named "iid", "dirichlet" or "shards".

    Returns:
        One ascending index array per client; together they hold every index once.

    Raises:
        ValueError: an unknown scheme, or more clients than the samples can serve with `min_size` each.
    """
    _require_enough(len(labels), num_clients, max(min_size, 1))
    if scheme == "shards" and shards_per_client > 0:
        least = len(labels) // (num_clients * shards_per_client) * shards_per_client
        if least < max(min_size, 1):
            raise ValueError(
                f"{len(labels)} samples in {num_clients} x {shards_per_client} shards may leave a client "
                f"with {least}, fewer than min_size={max(min_size, 1)}"
            )
    if scheme == "iid":
        return partition_iid(labels, num_clients, random)
    if scheme == "dirichlet":
        return partition_dirichlet(labels, num_clients, random, alpha, min_size)
    if scheme == "shards":
        return partition_shards(labels, num_clients, random, shards_per_client)
    raise ValueError(f"unknown partition {scheme!r}: iid, dirichlet or shards")


def class_counts(parts: list[Indices], labels: Indices, num_classes: int) -> NDArray[np.int64]:
    """Table (num_clients, num_classes): how many samples of each class each client has."""
    return np.stack([np.bincount(labels[part], minlength=num_classes) for part in parts])
