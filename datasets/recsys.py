"""Implicit feedback: who touched which item, with one interaction of every user held out."""

import gzip
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from byzflower.datasets.base import DataNotFoundError
from byzflower.datasets.recsys_synthetic import long_tailed
from byzflower.randomness import numpy_generator

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Feedback:
    """Every user's items; an interaction counts once, whatever the rating.

    Attributes:
        num_items: m; some of them may never occur.
        splits: (n + 1,) user i's training items are ``items[splits[i]:splits[i + 1]]``.
        items: training items, ascending and distinct within a user.
        test: (n,) every user's held-out item, -1 for a user that has only one.
    """

    num_items: int
    splits: Indices
    items: Indices
    test: Indices

    @property
    def num_users(self) -> int:
        """Number n of users."""
        return len(self.test)

    @property
    def num_interactions(self) -> int:
        """Interactions, training and held out."""
        return len(self.items) + int((self.test >= 0).sum())

    @cached_property
    def popularity(self) -> Indices:
        """(m,) number of users that have an item in training: the items' degrees."""
        return np.bincount(self.items, minlength=self.num_items)

    def of(self, user: int) -> Indices:
        """Training items of a user."""
        return self.items[self.splits[user] : self.splits[user + 1]]

    def touched(self, user: int) -> Indices:
        """All items of a user, the held-out one too."""
        return np.union1d(self.of(user), self.test[user : user + 1][self.test[user : user + 1] >= 0])

    def statistics(self) -> dict[str, float]:
        """Users, items, interactions, sparsity in [0, 1], and how degrees are spread."""
        degrees = np.sort(self.popularity)[::-1]
        head = max(1, self.num_items // 20)
        return {
            "users": self.num_users,
            "items": self.num_items,
            "items that occur": int((self._occurrences() > 0).sum()),
            "interactions": self.num_interactions,
            "sparsity": 1 - self.num_interactions / (self.num_users * self.num_items),
            "median degree": float(np.median(degrees)),
            "largest degree": int(degrees[0]),
            "share of the most popular 5 %": float(degrees[:head].sum() / max(1, degrees.sum())),
        }

    def _occurrences(self) -> Indices:
        counts: Indices = self.popularity + np.bincount(self.test[self.test >= 0], minlength=self.num_items)
        return counts


# -- splitting -----------------------------------------------------------------------------------------


def leave_one_out(
    users: Indices, items: Indices, times: NDArray[np.float64] | None, seed: int = 0
) -> Feedback:
    """Hold out every user's latest interaction (of those at the same time, the last in the file).

    Users and items are numbered by first appearance; a repeated pair counts once, at its first place.

    Args:
        users: (e,) user of every interaction, in the file's order.
        items: (e,) its item.
        times: (e,) when it was; None to hold out a random one.
        seed: of the random choice.
    """
    users, items = _renumber(users), _renumber(items)
    num_items = int(items.max()) + 1
    _, first = np.unique(users * num_items + items, return_index=True)
    first.sort()
    users, items = users[first], items[first]
    when = numpy_generator(seed, "leave-one-out").random(len(first)) if times is None else times[first]
    order = np.lexsort((when, users))  # stable: the file's order among equals
    users, items = users[order], items[order]
    last = np.append(users[1:] != users[:-1], True)
    alone = last & np.insert(last[:-1], 0, True)
    test = np.where(alone[last], -1, items[last])
    return _feedback(users[~last | alone], items[~last | alone], test, num_items)


def _renumber(values: Indices) -> Indices:
    """Numbers from 0 by first appearance."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def _feedback(users: Indices, items: Indices, test: Indices, num_items: int) -> Feedback:
    order = np.lexsort((items, users))
    splits = np.concatenate([[0], np.cumsum(np.bincount(users, minlength=len(test)))])
    return Feedback(num_items, splits, items[order], test)


# -- files ---------------------------------------------------------------------------------------------


def read_ratings(path: Path, separator: bytes) -> Feedback:
    """Read MovieLens's ``u.data`` (separator a tab) or ``ratings.dat`` (``::``): user, item, rating, time."""
    numbers = np.fromstring(_read(path).replace(separator, b" ").decode(), sep=" ").reshape(-1, 4)
    return leave_one_out(numbers[:, 0].astype(np.int64), numbers[:, 1].astype(np.int64), numbers[:, 3])


def read_steam(path: Path, fewest: int = 5) -> Feedback:
    """Read ``steam-200k.csv``: user, "game", purchase or play, value, 0; there are no times.

    Args:
        path: of the file.
        fewest: users with fewer games are dropped; the games that only they had stay numbered.
    """
    lines = _read(path).decode("utf-8").splitlines()
    rows = [(line.partition(",")[0], line.partition(",")[2].rsplit(",", 3)[0]) for line in lines]
    users, games = (
        _renumber(np.unique(column, return_inverse=True)[1]) for column in zip(*rows, strict=True)
    )
    pairs = np.unique(users * (int(games.max()) + 1) + games)
    games_of = np.bincount(pairs // (int(games.max()) + 1))
    kept = games_of[users] >= fewest
    return leave_one_out(users[kept], games[kept], None)


def read_split(folder: Path) -> Feedback:
    """Read a ready-made split: ``train.txt`` and ``test.txt`` with a line ``user item item ...`` per user.

    Ids are kept as they are, so that items without any interaction count.

    Raises:
        ValueError: a user that is in one file only, or a user with another number of test items than one.
    """
    train: dict[int, list[int]] = {}
    test: dict[int, list[int]] = {}
    for part, name in ((train, "train.txt"), (test, "test.txt")):
        for line in _read(_packed(folder / name) or folder / name).splitlines():
            user, *own = map(int, line.split())
            part[user] = own
    if sorted(train) != list(range(len(train))) or train.keys() != test.keys():
        raise ValueError(f"{folder}: train.txt and test.txt do not have the same users 0..{len(train) - 1}")
    if any(len(own) != 1 for own in test.values()):
        raise ValueError(f"{folder}: test.txt must have one item per user")
    users = np.concatenate([np.full(len(set(own)), user) for user, own in sorted(train.items())])
    items = np.concatenate([np.array(sorted(set(own)), np.int64) for _, own in sorted(train.items())])
    held_out = np.array([test[user][0] for user in sorted(test)])
    return _feedback(users, items, held_out, int(max(items.max(), held_out.max())) + 1)


def _read(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def _packed(path: Path) -> Path | None:
    """The file itself, or the gzipped one beside it."""
    return next((p for p in (path, path.with_name(path.name + ".gz")) if p.is_file()), None)


def _find(data: str, candidates: Sequence[str]) -> Path:
    root = data or os.environ.get("BYZFLOWER_DATA", "")
    for folder in (Path(root), Path(root) / "recsys"):
        for candidate in candidates:
            found = _packed(folder / candidate)
            if root and found is not None:
                return found
    where = f"below {root}" if root else "anywhere: neither --data nor BYZFLOWER_DATA is set"
    raise DataNotFoundError(f"none of {', '.join(candidates)} was found {where}")


def _ready_made(name: str, data: str) -> Feedback:
    return read_split(_find(data, [f"spattack/{name}/train.txt", f"{name}/train.txt"]).parent)


def load_ml100k(data: str) -> Feedback:
    """MovieLens-100K from ``u.data``: 943 users, 1,682 items, 100,000 interactions."""
    return read_ratings(_find(data, ["ml-100k/u.data"]), b"\t")


def load_ml1m(data: str) -> Feedback:
    """MovieLens-1M from ``ratings.dat``: 6,040 users, 3,706 items, 1,000,209 interactions."""
    return read_ratings(_find(data, ["ml-1m/ratings.dat", "ml-1m/ratings.filled.dat"]), b"::")


def load_steam(data: str) -> Feedback:
    """Steam-200K from the raw csv: users with at least 5 games; a random game of each is held out."""
    return read_steam(_find(data, ["steam-200k/steam-200k.csv", "steam/steam-200k.csv"]))


def load_ml100k_split(data: str) -> Feedback:
    """MovieLens-100K as split for FedRecAttack and Spattack: 99,999 interactions."""
    return _ready_made("ml-100k", data)


def load_ml1m_split(data: str) -> Feedback:
    """MovieLens-1M as split for FedRecAttack and Spattack."""
    return _ready_made("ml-1m", data)


def load_steam_split(data: str) -> Feedback:
    """Steam-200K as split for FedRecAttack and Spattack: 3,753 users, 5,134 items, 114,713 interactions."""
    return _ready_made("steam", data)


def load_synthetic(data: str, num_users: int = 300, num_items: int = 400) -> Feedback:
    """Made-up users and items with a long tail and tastes to learn; needs no files."""
    users, items = long_tailed(num_users, num_items, seed=0)
    return leave_one_out(users, items, None)


def load_synthetic_small(data: str) -> Feedback:
    """The same, with 40 users and 60 items."""
    return load_synthetic(data, 40, 60)


FEEDBACK: dict[str, Callable[[str], Feedback]] = {
    "ml-100k": load_ml100k,
    "ml-100k-split": load_ml100k_split,
    "ml-1m": load_ml1m,
    "ml-1m-split": load_ml1m_split,
    "steam": load_steam,
    "steam-split": load_steam_split,
    "synthetic": load_synthetic,
    "synthetic-small": load_synthetic_small,
}


@lru_cache(maxsize=2)
def load_feedback(name: str, data: str = "") -> Feedback:
    """Load a data set of `FEEDBACK`.

    Args:
        name: of the data set.
        data: folder with the raw files; default `BYZFLOWER_DATA`.

    Raises:
        DataNotFoundError: the files are not there.
    """
    return FEEDBACK[name](data)
