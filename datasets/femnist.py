"""FEMNIST by writer, from the JSON files that LEAF makes (Caldas et al., 2018)."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byzflower.datasets.base import Dataset
from byzflower.datasets.cache import Arrays, prepared
from byzflower.datasets.errors import DataNotFoundError
from byzflower.datasets.vision import data_folder

_SIDE = 28
Writers = dict[str, list[tuple[NDArray[np.uint8], NDArray[np.int64]]]]


def _folder(root: Path) -> Path:
    """The folder with train/*.json and test/*.json.

    Raises:
        DataNotFoundError: there is none.
    """
    places = [base / inner for base in (root, root / "vision") for inner in ("femnist", "femnist/data")]
    for place in places:
        if all(any((place / split).glob("*.json")) for split in ("train", "test")):
            return place
    raise DataNotFoundError(
        f"FEMNIST was not found in {root} (looked for femnist/train/*.json and femnist/test/*.json there "
        f"and in vision/, also below femnist/data). Make these files with LEAF and name the folder with "
        f"--data or BYZFLOWER_DATA."
    )


def _read(files: Iterable[Path]) -> Writers:
    """Images and labels of each writer, in the files' order."""
    writers: Writers = {}
    for file in files:
        try:
            for name, samples in json.loads(file.read_text())["user_data"].items():
                writers.setdefault(name, []).append(_images(samples))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataNotFoundError(f"{file} cannot be read: {error!s:.200}") from None
    return writers


def _images(samples: dict[str, Any]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    # LEAF divides grey values by 255: as bytes they take an eighth of the memory and lose nothing.
    pixels = np.rint(np.asarray(samples["x"], np.float64) * 255).astype(np.uint8)
    labels = np.asarray(samples["y"], np.int64)
    return pixels.reshape(len(labels), 1, _SIDE, _SIDE), labels


def _arrays(folder: Path) -> Arrays:
    arrays: dict[str, NDArray[Any]] = {}
    for split in ("train", "test"):
        writers = _read(sorted((folder / split).glob("*.json")))
        parts = [part for name in sorted(writers) for part in writers[name]]
        arrays[f"{split}_x"] = np.concatenate([x for x, _ in parts])
        arrays[f"{split}_y"] = np.concatenate([y for _, y in parts])
        if split == "train":
            sizes = [sum(len(y) for _, y in writers[name]) for name in sorted(writers)]
            arrays["train_groups"] = np.repeat(np.arange(len(sizes)), sizes)
    return arrays


def load_femnist(data: str = "") -> Dataset:
    """FEMNIST by writer: grey 28 x 28 images of 62 digits and letters, as LEAF's JSON files.

    LEAF splits every writer's images into train and test; with ``partition=natural`` every client is one
    of the writers (STRIKE's setting).
    """
    root = data_folder(data)
    return prepared("femnist", str(root), lambda: _arrays(_folder(root)))
