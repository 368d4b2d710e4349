"""Recommenders' data sets as tables of users and items: Last.fm, Citeulike-a and -t, ML-100K."""

import gzip
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from byzflower.datasets.base import DataNotFoundError
from byzflower.datasets.interactions import Interactions

_CITEULIKE_T_ITEMS = 25_975  # as its authors state; the last ones have no user


def load_lastfm(data: str = "") -> Interactions:
    """HetRec 2011 Last.fm: 1,892 users, 17,632 artists, 92,834 pairs; how often is not looked at.

    Users and artists are numbered by ascending original id.

    Args:
        data: folder with ``lastfm/user_artists.dat``, or its .gz.
    """
    rows = np.loadtxt(_lines(data, "lastfm/user_artists.dat")[1:], dtype=np.int64, usecols=(0, 1))
    return _renumbered(rows)


def load_ml100k(data: str = "") -> Interactions:
    """MovieLens 100K: 943 users, 1,682 films, 100,000 ratings; every rating counts alike.

    Args:
        data: folder with ``ml-100k/u.data``.
    """
    return _renumbered(np.loadtxt(_lines(data, "ml-100k/u.data"), dtype=np.int64, usecols=(0, 1)))


def load_citeulike_a(data: str = "") -> Interactions:
    """Citeulike-a: 5,551 users, 16,980 articles, 204,986 pairs (one less than its authors state).

    Args:
        data: folder with ``citeulike-a/users.dat``, or its .gz.
    """
    return _citeulike(_lines(data, "citeulike-a/users.dat"))


def load_citeulike_t(data: str = "") -> Interactions:
    """Citeulike-t: 7,947 users, 25,975 articles, of which 391 have no user, 134,860 pairs.

    Args:
        data: folder with ``citeulike-t/users.dat``, or its .gz.
    """
    return _citeulike(_lines(data, "citeulike-t/users.dat"), _CITEULIKE_T_ITEMS)


FEEDBACK: dict[str, Callable[[str], Interactions]] = {
    "citeulike-a": load_citeulike_a,
    "citeulike-t": load_citeulike_t,
    "lastfm": load_lastfm,
    "ml-100k": load_ml100k,
}


@lru_cache(maxsize=4)
def load_feedback(name: str, data: str = "") -> Interactions:
    """Load a table by name, once per process.

    Args:
        name: a key of `FEEDBACK`.
        data: folder with the raw files; default `BYZFLOWER_DATA`.

    Raises:
        DataNotFoundError: the file is not there.
    """
    return FEEDBACK[name](data)


def _renumbered(rows: np.ndarray) -> Interactions:
    """Pairs of arbitrary ids, numbered by rank."""
    users, items = (np.unique(column, return_inverse=True)[1] for column in rows.T)
    return Interactions.of_pairs(users, items)


def _citeulike(lines: list[str], num_items: int | None = None) -> Interactions:
    """A line per user: how many items, then their numbers."""
    rows = [np.array(line.split(), dtype=np.int64)[1:] for line in lines]
    users = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    return Interactions.of_pairs(users, np.concatenate(rows), len(rows), num_items)


def _lines(data: str, name: str) -> list[str]:
    """Lines of a text file or of its .gz, below the folder or its ``recsys``."""
    root = Path(data or os.environ.get("BYZFLOWER_DATA", ""))
    for path in (root / name, root / "recsys" / name):
        for candidate in (path, path.with_name(path.name + ".gz")):
            if candidate.is_file():
                opened = gzip.open if candidate.suffix == ".gz" else open
                with opened(candidate, "rt", encoding="utf-8") as file:
                    return file.read().splitlines()
    raise DataNotFoundError(
        f"{name} (or .gz) is not below {root}: set --data or BYZFLOWER_DATA to its folder"
    )
