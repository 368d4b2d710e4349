"""ImageNet-12: a folder of pictures per class, read by torchvision."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byzflower.datasets.base import Dataset
from byzflower.datasets.cache import Arrays, prepared
from byzflower.datasets.errors import DataNotFoundError
from byzflower.datasets.torchvision_guard import import_torchvision
from byzflower.datasets.vision import data_folder

_NAMES = ("imagenet12", "imagenet-12", "ImageNet12", "ImageNet-12")
_TEST = ("val", "test")
_RESIZED, _SIDE = 256, 224


def _splits(root: Path) -> tuple[Path, Path]:
    """The folders of the training and of the test pictures.

    Raises:
        DataNotFoundError: they are not there.
    """
    for base in (root / place / name for place in ("", "vision") for name in _NAMES):
        test = next((base / name for name in _TEST if (base / name).is_dir()), None)
        if (base / "train").is_dir() and test is not None:
            return base / "train", test
    raise DataNotFoundError(
        f"ImageNet-12 was not found in {root} (looked for imagenet12/train/<class>/*.JPEG and "
        f"imagenet12/val/<class>/*.JPEG there and in vision/). ImageNet cannot be downloaded freely: take "
        f"12 of its classes and name the folder with --data or BYZFLOWER_DATA."
    )


def _read(folder: Path, datasets: Any, transforms: Any) -> tuple[Sequence[str], Arrays]:
    """Classes in alphabetical order; their pictures, all of one size, and labels."""
    prepare = transforms.Compose([transforms.Resize(_RESIZED), transforms.CenterCrop(_SIDE)])
    try:
        found = datasets.ImageFolder(str(folder))
    except FileNotFoundError as error:  # no class, or one without pictures
        raise DataNotFoundError(f"{folder} cannot be read: {error!s:.200}") from None
    images: NDArray[np.uint8] = np.empty((len(found.samples), 3, _SIDE, _SIDE), np.uint8)
    for image, (path, _) in zip(images, found.samples, strict=True):
        try:
            image[:] = np.asarray(prepare(found.loader(path))).transpose(2, 0, 1)
        except (OSError, ValueError) as error:
            raise DataNotFoundError(f"{path} cannot be read: {error!s:.200}") from None
    return found.classes, {"x": images, "y": np.array(found.targets, np.int64)}


def _arrays(root: Path) -> Arrays:
    folders = _splits(root)
    modules = import_torchvision("torchvision.datasets"), import_torchvision("torchvision.transforms")
    (classes, train), (others, test) = (_read(folder, *modules) for folder in folders)
    if list(classes) != list(others):
        unshared = sorted(set(classes) ^ set(others))
        raise DataNotFoundError(f"{folders[0]} and {folders[1]} do not share the classes {unshared}")
    return {"train_x": train["x"], "train_y": train["y"], "test_x": test["x"], "test_y": test["y"]}


def load_imagenet12(data: str = "") -> Dataset:
    """ImageNet-12: colour pictures of 12 of ImageNet's classes, from a folder per class.

    STRIKE's subset of ImageNet, whose classes the paper does not list: any folder of the layout
    ``imagenet12/{train,val}/<class>/`` is read. The shorter side is brought to 256 pixels and the middle
    224 x 224 cut out; pictures are prepared once, and not augmented.
    """
    root = data_folder(data)
    return prepared("imagenet12", str(root), lambda: _arrays(root))
