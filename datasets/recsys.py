"""Data sets of recommenders as implicit feedback: a rating counts, whatever its value."""

import gzip
import os
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from byzflower.datasets import FEEDBACK
from byzflower.datasets.errors import DataNotFoundError
from byzflower.datasets.interactions import Interactions
from byzflower.datasets.recsys_synthetic import long_tailed

Indices = NDArray[np.int64]
_CITEULIKE_T_ITEMS = 25_975  # as its authors state; the last ones have no user


# -- numbers of users and items ------------------------------------------------------------------------


def _by_id(ids: NDArray[np.generic]) -> Indices:
    """Numbers from 0 by ascending id."""
    numbers: Indices = np.unique(ids, return_inverse=True)[1].astype(np.int64)
    return numbers


def _by_appearance(ids: NDArray[np.generic]) -> Indices:
    """Numbers from 0 by first appearance, where ids mean nothing."""
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


# -- files ---------------------------------------------------------------------------------------------


def read_ratings(path: Path, separator: str) -> Interactions:
    """Read MovieLens's ``u.data`` (separator a tab) or ``ratings.dat`` (``::``): user, item, rating, time.

    Users and items are numbered by ascending id.
    """
    numbers = np.fromstring(_read(path).replace(separator, " "), sep=" ").reshape(-1, 4)
    users, items = (_by_id(column) for column in numbers.T[:2])
    return Interactions.of_pairs(users, items, times=numbers[:, 3])


def read_lastfm(path: Path) -> Interactions:
    """Read ``user_artists.dat``: a heading, then user, artist, how often. Numbered by ascending id."""
    rows = np.loadtxt(_read(path).splitlines()[1:], dtype=np.int64, usecols=(0, 1))
    return Interactions.of_pairs(_by_id(rows[:, 0]), _by_id(rows[:, 1]))


def read_citeulike(path: Path, num_items: int | None = None) -> Interactions:
    """Read ``users.dat``: a line per user, how many items and then their numbers.

    Args:
        path: of the file.
        num_items: default those up to the last one that has a user.
    """
    rows = [np.array(line.split(), dtype=np.int64)[1:] for line in _read(path).splitlines()]
    users = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    return Interactions.of_pairs(users, np.concatenate(rows), len(rows), num_items)


def read_steam(path: Path, fewest: int = 5) -> Interactions:
    """Read ``steam-200k.csv``: user, "game", purchase or play, value, 0; there are no times.

    Users and games are numbered by first appearance.

    Args:
        path: of the file.
        fewest: users with fewer games are dropped, and the games that only they had.
    """
    rows = [(user, rest.rsplit(",", 3)[0]) for user, _, rest in _partitions(_read(path))]
    users, games = (_by_appearance(np.array(column)) for column in zip(*rows, strict=True))
    games_of = Interactions.of_pairs(users, games).counts
    kept = games_of[users] >= fewest
    return Interactions.of_pairs(_by_appearance(users[kept]), _by_appearance(games[kept]))


def _partitions(text: str) -> list[tuple[str, str, str]]:
    return [line.partition(",") for line in text.splitlines()]


def read_split(folder: Path) -> Interactions:
    """Read a ready-made split: ``train.txt`` and ``test.txt`` with a line ``user item item ...`` per user.

    The held-out item counts as the user's last one, so that `Interactions.leave_one_out` makes the split
    again. Ids are kept as they are, so that items without any interaction count.

    Raises:
        ValueError: a user that is in one file only, or a user with another number of test items than one.
    """
    users, items, is_test = [], [], []
    known: list[list[int]] = []
    for late, name in enumerate(("train.txt", "test.txt")):
        rows = [[int(word) for word in line.split()] for line in _read(folder / name).splitlines()]
        known.append(sorted(user for user, *_ in rows))
        users += [user for user, *own in rows for _ in own]
        items += [item for _, *own in rows for item in own]
        is_test += [late for _, *own in rows for _ in own]
        if late and any(len(own) != 2 for own in rows):
            raise ValueError(f"{folder}: test.txt must have one item per user")
    if known[0] != known[1] or known[0] != list(range(len(known[0]))):
        raise ValueError(
            f"{folder}: train.txt and test.txt do not have the same users 0..{len(known[0]) - 1}"
        )
    return Interactions.of_pairs(np.array(users), np.array(items), times=np.array(is_test, float))


def _read(path: Path) -> str:
    """Text of a file, or of its .gz."""
    packed = path.with_name(path.name + ".gz")
    if not path.is_file() and packed.is_file():
        return gzip.decompress(packed.read_bytes()).decode("utf-8")
    return path.read_text("utf-8")


def _find(data: str, *candidates: str) -> Path:
    """The first of some paths that is below the folder or its ``recsys``, packed or not."""
    root = data or os.environ.get("BYZFLOWER_DATA", "")
    for folder in (Path(root), Path(root) / "recsys"):
        for candidate in candidates:
            path = folder / candidate
            if root and (path.is_file() or path.with_name(path.name + ".gz").is_file()):
                return path
    where = f"below {root}" if root else "anywhere"
    raise DataNotFoundError(
        f"none of {', '.join(candidates)} was found {where}, plain or as .gz: set --data or BYZFLOWER_DATA"
    )


# -- data sets -----------------------------------------------------------------------------------------


def load_citeulike_a(data: str) -> Interactions:
    """Citeulike-a: 5,551 users, 16,980 articles, 204,986 pairs (one less than its authors state)."""
    return read_citeulike(_find(data, "citeulike-a/users.dat"))


def load_citeulike_t(data: str) -> Interactions:
    """Citeulike-t: 7,947 users, 25,975 articles, of which 391 have no user, 134,860 pairs."""
    return read_citeulike(_find(data, "citeulike-t/users.dat"), _CITEULIKE_T_ITEMS)


def load_lastfm(data: str) -> Interactions:
    """HetRec 2011 Last.fm: 1,892 users, 17,632 artists, 92,834 pairs; how often is not looked at."""
    return read_lastfm(_find(data, "lastfm/user_artists.dat"))


def load_ml100k(data: str) -> Interactions:
    """MovieLens-100K from ``u.data``: 943 users, 1,682 films, 100,000 ratings; every rating counts alike."""
    return read_ratings(_find(data, "ml-100k/u.data"), "\t")


def load_ml1m(data: str) -> Interactions:
    """MovieLens-1M from ``ratings.dat``: 6,040 users, 3,706 films, 1,000,209 ratings."""
    return read_ratings(_find(data, "ml-1m/ratings.dat", "ml-1m/ratings.filled.dat"), "::")


def load_steam(data: str) -> Interactions:
    """Steam-200K from the raw csv: users with at least 5 games; there are no times."""
    return read_steam(_find(data, "steam-200k/steam-200k.csv", "steam/steam-200k.csv"))


def _ready_made(name: str, data: str) -> Interactions:
    return read_split(_find(data, f"spattack/{name}/train.txt", f"{name}/train.txt").parent)


def load_ml100k_split(data: str) -> Interactions:
    """MovieLens-100K as split for FedRecAttack and Spattack: 99,999 interactions."""
    return _ready_made("ml-100k", data)


def load_ml1m_split(data: str) -> Interactions:
    """MovieLens-1M as split for FedRecAttack and Spattack."""
    return _ready_made("ml-1m", data)


def load_steam_split(data: str) -> Interactions:
    """Steam-200K as split for FedRecAttack and Spattack: 3,753 users, 5,134 items, 114,713 interactions."""
    return _ready_made("steam", data)


def load_synthetic(data: str, num_users: int = 300, num_items: int = 400) -> Interactions:
    """Made-up users and items with a long tail and tastes to learn; needs no files."""
    users, items = long_tailed(num_users, num_items, seed=0)
    return Interactions.of_pairs(_by_appearance(users), _by_appearance(items))


def load_synthetic_small(data: str) -> Interactions:
    """The same, with 40 users and 60 items."""
    return load_synthetic(data, 40, 60)


@lru_cache(maxsize=4)
def load_feedback(name: str, data: str = "") -> Interactions:
    """Load a table by name, once per process.

    Args:
        name: a key of `FEEDBACK`.
        data: folder with the raw files; default `BYZFLOWER_DATA`.

    Raises:
        DataNotFoundError: the files are not there.
    """
    return FEEDBACK[name](data)
