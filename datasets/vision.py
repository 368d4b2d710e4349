"""Image data sets read by torchvision from a folder that the user names."""

import gzip
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np

from byzflower.datasets.base import Dataset
from byzflower.datasets.cache import Arrays, cache_folder, prepared
from byzflower.datasets.errors import DataNotFoundError
from byzflower.datasets.torchvision_guard import import_torchvision

_IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


_UNREADABLE = (
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    HTTPException,
    tarfile.TarError,
    UnpicklingError,
    KeyError,
)


def data_folder(data: str = "") -> Path:
    """Where raw data is: `data`, else `BYZFLOWER_DATA`, else a folder of the cache for downloads."""
    named = data or os.environ.get("BYZFLOWER_DATA", "")
    return Path(named).expanduser().resolve() if named else cache_folder() / "downloads"


def _raw_folder(root: Path, name: str) -> Path | None:
    """The folder with the four idx files of a data set, packed or not, at or below `root`."""
    for base in (root, root / "vision"):
        raw = base / name / "raw"
        if all((raw / f).is_file() or (raw / f"{f}.gz").is_file() for f in _IDX_FILES):
            return raw
    return None


def read_splits(
    name: str, root: Path, found: Path | None, looked_for: str, provide: Callable[[Path, Path], None]
) -> list[Any]:
    """The train and the test split of a data set as torchvision reads them, downloaded if it is nowhere.

    Args:
        name: torchvision's class.
        root: where the files were looked for.
        found: where they are; None to download them.
        looked_for: their names, for the error message.
        provide: puts what was found into a folder of the layout that torchvision expects.

    Raises:
        DataNotFoundError: they cannot be read, or not be downloaded.
    """
    datasets = import_torchvision("torchvision.datasets")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        try:
            if found is not None:
                provide(found, place)
            return [
                getattr(datasets, name)(str(place), train=train, download=found is None)
                for train in (True, False)
            ]
        except _UNREADABLE as error:
            if found is not None:
                raise DataNotFoundError(f"{name} in {found} cannot be read: {error!s:.200}") from None
            raise DataNotFoundError(
                f"{name} was not found in {root} (looked for {looked_for} there and in vision/) and could "
                f"not be downloaded ({error!s:.200}). Name the folder with --data or BYZFLOWER_DATA."
            ) from None


def _idx_arrays(root: Path, name: str) -> Arrays:
    """Read a data set in MNIST's format."""
    looked_for = f"{name}/raw/{_IDX_FILES[0]}[.gz]"
    splits = read_splits(
        name,
        root,
        _raw_folder(root, name),
        looked_for,
        lambda raw, place: _unpack(raw, place / name / "raw"),
    )
    train, test = ((s.data.numpy()[:, None], s.targets.numpy().astype(np.int64)) for s in splits)
    return {"train_x": train[0], "train_y": train[1], "test_x": test[0], "test_y": test[1]}


def _unpack(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for name in _IDX_FILES:
        plain = source / name
        if plain.is_file():
            (target / name).symlink_to(plain)
            continue
        with gzip.open(source / f"{name}.gz") as packed, open(target / name, "wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)


def load_mnist(data: str = "") -> Dataset:
    """MNIST: 60,000 + 10,000 grey 28 x 28 images of digits."""
    root = data_folder(data)
    return prepared("mnist", str(root), lambda: _idx_arrays(root, "MNIST"))


def load_fashion_mnist(data: str = "") -> Dataset:
    """Fashion-MNIST: 60,000 + 10,000 grey 28 x 28 images of ten kinds of clothing."""
    root = data_folder(data)
    return prepared("fashion_mnist", str(root), lambda: _idx_arrays(root, "FashionMNIST"))
