"""CIFAR-10 and CIFAR-100, read by torchvision, and a small copy of CIFAR-10 made of JPEG images."""

import tarfile
from pathlib import Path

import numpy as np

from byzflower.datasets.base import Dataset
from byzflower.datasets.cache import Arrays, prepared
from byzflower.datasets.errors import DataNotFoundError
from byzflower.datasets.vision import data_folder, read_splits

_SUBSET = "cifar10-jpeg-subset.npz"
# torchvision's class, its folder and the archive that it comes in.
_CIFAR10 = ("CIFAR10", "cifar-10-batches-py", "cifar-10-python.tar.gz")
_CIFAR100 = ("CIFAR100", "cifar-100-python", "cifar-100-python.tar.gz")


def _first(root: Path, *names: str) -> Path | None:
    """The first of some files or folders that is at `root` or in its folder vision."""
    places = (base / name for base in (root, root / "vision") for name in names)
    return next((place for place in places if place.exists()), None)


def _cifar_arrays(root: Path, name: str, folder: str, archive: str) -> Arrays:
    """Read the published batches, from their folder or their archive."""

    def provide(found: Path, place: Path) -> None:
        if found.is_dir():
            (place / folder).symlink_to(found)
            return
        with tarfile.open(found) as packed:
            packed.extractall(place, filter="data")

    splits = read_splits(name, root, _first(root, folder, archive), f"{folder} and {archive}", provide)
    # torchvision has images as (m, h, w, c)
    train, test = ((s.data.transpose(0, 3, 1, 2), np.array(s.targets, np.int64)) for s in splits)
    return {"train_x": train[0], "train_y": train[1], "test_x": test[0], "test_y": test[1]}


def _subset_arrays(root: Path) -> Arrays:
    path = _first(root, _SUBSET, f"cifar-10/{_SUBSET}")
    if path is None:
        raise DataNotFoundError(
            f"{_SUBSET} was not found in {root} (looked there, in cifar-10/ and in vision/). "
            f"Name the folder with --data or BYZFLOWER_DATA."
        )
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {
                f"{split}_{part}": arrays[f"{part}_{split}"].transpose(0, 3, 1, 2)
                if part == "x"
                else arrays[f"{part}_{split}"].astype(np.int64)
                for split in ("train", "test")
                for part in ("x", "y")
            }
    except (OSError, ValueError, KeyError) as error:
        raise DataNotFoundError(f"{path} cannot be read: {error!s:.200}") from None


def load_cifar10(data: str = "") -> Dataset:
    """CIFAR-10: 50,000 + 10,000 colour 32 x 32 images of ten kinds of things."""
    root = data_folder(data)
    return prepared("cifar10", str(root), lambda: _cifar_arrays(root, *_CIFAR10))


def load_cifar100(data: str = "") -> Dataset:
    """CIFAR-100: 50,000 + 10,000 colour 32 x 32 images of a hundred kinds of things."""
    root = data_folder(data)
    return prepared("cifar100", str(root), lambda: _cifar_arrays(root, *_CIFAR100))


def load_cifar10_jpeg(data: str = "") -> Dataset:
    """A balanced part of CIFAR-10 decoded from JPEG: 10,000 + 2,000 images, for tests, not for reports.

    Compression has changed the pixels, and the images are not the first ones of the original order: what
    is measured on it is not comparable with CIFAR-10. Read from ``cifar10-jpeg-subset.npz``, which has
    x_train (m, 32, 32, 3), y_train, x_test and y_test.
    """
    root = data_folder(data)
    return prepared("cifar10_jpeg", str(root), lambda: _subset_arrays(root))
