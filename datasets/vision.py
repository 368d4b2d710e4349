"""Image data sets read by torchvision from a folder that the user names."""

import gzip
import os
import shutil
import tempfile
from http.client import HTTPException
from pathlib import Path

import numpy as np

from byzflower.datasets.base import DataNotFoundError, Dataset
from byzflower.datasets.cache import Arrays, cache_folder, prepared
from byzflower.datasets.torchvision_guard import import_torchvision

_IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
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


def _idx_arrays(root: Path, name: str) -> Arrays:
    """Read a data set in MNIST's format with torchvision, downloading it if it is nowhere."""
    datasets = import_torchvision("torchvision.datasets")
    raw = _raw_folder(root, name)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        try:
            if raw is not None:
                _unpack(raw, place / name / "raw")
            splits = [
                getattr(datasets, name)(str(place), train=train, download=raw is None)
                for train in (True, False)
            ]
        except (RuntimeError, OSError, EOFError, ValueError, HTTPException) as error:
            if raw is not None:
                raise DataNotFoundError(f"{name} in {raw} cannot be read: {error!s:.200}") from None
            raise DataNotFoundError(
                f"{name} was not found in {root} (looked for {name}/raw/{_IDX_FILES[0]}[.gz] there and in "
                f"vision/) and could not be downloaded ({error!s:.200}). Name the folder with --data or "
                f"BYZFLOWER_DATA."
            ) from None
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
