"""Data sets prepared once into plain .npy files that every client process memory-maps."""

import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byzflower.datasets.base import Dataset

_FORMAT = 1
_LOADING = threading.Lock()
_PART = 1000
Arrays = Mapping[str, NDArray[Any]]


def cache_folder() -> Path:
    """Where prepared data lives: `BYZFLOWER_CACHE`, else ~/.cache/byzflower."""
    return Path(os.environ.get("BYZFLOWER_CACHE") or Path.home() / ".cache" / "byzflower")


def prepared(name: str, source: str, build: Callable[[], Arrays]) -> Dataset:
    """Return a data set from the cache, building it there first if need be.

    Any number of processes may call this at once: the files are written aside and moved into place.

    Args:
        name: of the data set.
        source: what it is made from (a folder's path); another source is another entry.
        build: returns train_x, train_y, test_x, test_y and, if there are natural clients, train_groups.
    """
    key = hashlib.blake2b(f"{_FORMAT}/{name}/{source}".encode(), digest_size=6).hexdigest()
    folder = cache_folder() / f"{name}-{key}"
    if not folder.is_dir():
        _write(folder, build())
    return _open(folder)


def _write(folder: Path, arrays: Arrays) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    mean, std = _moments(arrays["train_x"])
    for name, array in {**arrays, "mean": mean, "std": std}.items():
        np.save(aside / f"{name}.npy", array, allow_pickle=False)
    try:
        aside.rename(folder)
    except OSError:  # another process was faster
        shutil.rmtree(aside, ignore_errors=True)


def _moments(x: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation (at least 1e-6) of each channel of (m, c, h, w) images.

    By parts: in float64, the images together would take eight times their memory.
    """

    def mean_of(change: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> NDArray[np.float64]:
        total = np.zeros(x.shape[1])
        for start in range(0, len(x), _PART):
            total += change(x[start : start + _PART].astype(np.float64)).sum(axis=(0, 2, 3))
        total /= x.size / x.shape[1]
        return total

    mean = mean_of(lambda part: part)
    variance = mean_of(lambda part: np.square(part - mean[:, None, None]))
    return mean.astype(np.float32), np.maximum(np.sqrt(variance), 1e-6).astype(np.float32)


def _open(folder: Path) -> Dataset:
    def mapped(name: str) -> NDArray[Any]:
        with _LOADING:  # NumPy reads headers with a parser that is not safe on threads in CPython 3.11
            array: NDArray[Any] = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        return array

    labels = mapped("train_y")
    return Dataset(
        mapped("train_x"),
        labels,
        mapped("test_x"),
        mapped("test_y"),
        int(labels.max()) + 1,
        np.array(mapped("mean")),
        np.array(mapped("std")),
        mapped("train_groups") if (folder / "train_groups.npy").is_file() else None,
    )
