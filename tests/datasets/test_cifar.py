"""CIFAR in torchvision's files, packed or not, and the part of it that is decoded from JPEG."""

import hashlib
import pickle
import re
import tarfile

import numpy as np
import pytest

from byzflower.datasets import DataNotFoundError, load_dataset
from byzflower.datasets.cache import _moments
from byzflower.datasets.torchvision_guard import import_torchvision

LAYOUT = {
    "cifar10": ("CIFAR10", "cifar-10-batches-py", "cifar-10-python.tar.gz", 10),
    "cifar100": ("CIFAR100", "cifar-100-python", "cifar-100-python.tar.gz", 100),
}
SUBSET = "cifar10-jpeg-subset.npz"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BYZFLOWER_CACHE", str(tmp_path / "cache"))


def write_batches(place, name, monkeypatch):
    """A miniature of the published files; torchvision is told their checksums."""
    kind = getattr(import_torchvision("torchvision.datasets"), LAYOUT[name][0])
    random = np.random.default_rng(0)
    folder = place / LAYOUT[name][1]
    folder.mkdir(parents=True)
    key = "labels" if name == "cifar10" else "fine_labels"
    images, labels = {True: [], False: []}, {True: [], False: []}

    def dump(content, file):
        (folder / file).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / file).read_bytes()).hexdigest()

    lists = {}
    for attribute, train in (("train_list", True), ("test_list", False)):
        entries = []
        for file, _ in getattr(kind, attribute):
            x = random.integers(0, 256, (20, 3072), dtype=np.uint8)
            y = random.permutation(LAYOUT[name][3])[:20].tolist() + [LAYOUT[name][3] - 1] * 20
            entries.append((file, dump({"data": x, key: y[:20]}, file)))
            images[train].append(x)
            labels[train] += y[:20]
        lists[attribute] = entries
    meta = kind.meta
    md5 = dump({meta["key"]: [str(i) for i in range(LAYOUT[name][3])]}, meta["filename"])
    monkeypatch.setattr(kind, "train_list", lists["train_list"])
    monkeypatch.setattr(kind, "test_list", lists["test_list"])
    monkeypatch.setattr(kind, "meta", {**meta, "md5": md5})
    return {t: (np.concatenate(images[t]).reshape(-1, 3, 32, 32), labels[t]) for t in (True, False)}


@pytest.mark.parametrize("name", LAYOUT)
@pytest.mark.parametrize("below", ["", "vision"])
@pytest.mark.parametrize("packed", [True, False], ids=["archive", "folder"])
def test_the_batches_are_read(name, below, packed, tmp_path, cache, monkeypatch):
    root = tmp_path / "data"
    expected = write_batches(root / below, name, monkeypatch)
    folder = root / below / LAYOUT[name][1]
    if packed:
        with tarfile.open(root / below / LAYOUT[name][2], "w:gz") as archive:
            archive.add(folder, folder.name)
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    dataset = load_dataset(name, str(root))
    for split, train in (("train", True), ("test", False)):
        assert np.array_equal(getattr(dataset, f"{split}_x"), expected[train][0])
        assert getattr(dataset, f"{split}_y").tolist() == expected[train][1]
    assert dataset.input_shape == (3, 32, 32)
    assert dataset.mean.shape == dataset.std.shape == (3,)


@pytest.mark.parametrize("name", LAYOUT)
def test_what_cannot_be_read_is_named_and_left_as_it_is(name, tmp_path, cache):
    archive = tmp_path / LAYOUT[name][2]
    archive.write_bytes(b"no archive")
    with pytest.raises(DataNotFoundError, match=re.escape(f"{archive} cannot be read")):
        load_dataset(name, str(tmp_path))
    assert archive.read_bytes() == b"no archive"


@pytest.mark.parametrize("name", LAYOUT)
def test_missing_files_name_the_folder_and_the_option(name, tmp_path, cache, monkeypatch):
    def fail(self):
        raise RuntimeError("no network")

    monkeypatch.setattr(import_torchvision("torchvision.datasets").CIFAR10, "download", fail)
    with pytest.raises(DataNotFoundError, match=re.escape(str(tmp_path))) as caught:
        load_dataset(name, str(tmp_path))
    for part in ("--data", "BYZFLOWER_DATA", *LAYOUT[name][1:3], "no network"):
        assert part in str(caught.value)


@pytest.mark.parametrize("below", ["", "vision/cifar-10"])
def test_the_jpeg_part_is_read(below, tmp_path, cache):
    random = np.random.default_rng(1)
    arrays = {f"x_{s}": random.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8) for s in ("train", "test")}
    arrays |= {f"y_{s}": (np.arange(20) % 10).astype(np.uint8) for s in ("train", "test")}
    (tmp_path / below).mkdir(parents=True, exist_ok=True)
    np.savez(tmp_path / below / SUBSET, **arrays)
    dataset = load_dataset("cifar10_jpeg", str(tmp_path))
    assert dataset.train_y.dtype == np.int64
    for split in ("train", "test"):
        got = getattr(dataset, f"{split}_x")
        assert got.shape == (20, 3, 32, 32)
        assert np.array_equal(got[3, 2], arrays[f"x_{split}"][3, :, :, 2])
        assert getattr(dataset, f"{split}_y").tolist() == arrays[f"y_{split}"].tolist()


def test_a_missing_or_broken_jpeg_part(tmp_path, cache):
    with pytest.raises(DataNotFoundError, match=f"{SUBSET} was not found in .*--data or BYZFLOWER_DATA"):
        load_dataset("cifar10_jpeg", str(tmp_path))
    np.savez(tmp_path / SUBSET, x_train=np.zeros((1, 32, 32, 3)))
    with pytest.raises(DataNotFoundError, match=f"{SUBSET} cannot be read"):
        load_dataset("cifar10_jpeg", str(tmp_path))


def test_the_public_jpeg_part_is_balanced(data):
    dataset = load_dataset("cifar10_jpeg", str(data))
    assert dataset.train_x.shape == (10_000, 3, 32, 32)
    assert dataset.test_x.shape == (2_000, 3, 32, 32)
    assert np.bincount(dataset.train_y).tolist() == [1000] * 10
    assert np.bincount(dataset.test_y).tolist() == [200] * 10
    assert dataset.train_y[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]


@pytest.mark.parametrize("m", [1, 999, 1000, 2500])
def test_moments_by_parts_are_those_of_the_whole(m):
    x = np.random.default_rng(2).integers(0, 256, (m, 3, 4, 5), dtype=np.uint8)
    mean, std = _moments(x)
    np.testing.assert_allclose(mean, x.mean(axis=(0, 2, 3), dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(std, x.astype(float).std(axis=(0, 2, 3)), rtol=1e-6)
    assert (_moments(np.zeros((2, 1, 3, 3)))[1] == np.float32(1e-6)).all()
