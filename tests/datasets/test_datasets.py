"""Data sets: what was in the files is what clients get, prepared once, without a network."""

import gzip
import re
import struct
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from byzflower.datasets import DATASETS, DataNotFoundError, load_dataset
from byzflower.datasets.cache import prepared
from byzflower.datasets.torchvision_guard import import_torchvision

REPOSITORY = Path(__file__).parents[2]
IMAGE_SETS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}
IDX = {
    "train_x": "train-images-idx3-ubyte",
    "train_y": "train-labels-idx1-ubyte",
    "test_x": "t10k-images-idx3-ubyte",
    "test_y": "t10k-labels-idx1-ubyte",
}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("BYZFLOWER_CACHE", str(folder))
    return folder


@pytest.fixture
def offline(monkeypatch):
    def fail(self):
        raise RuntimeError("no network")

    monkeypatch.setattr(import_torchvision("torchvision.datasets").MNIST, "download", fail)


def small_arrays():
    random = np.random.default_rng(0)
    return {
        "train_x": random.integers(0, 256, (30, 1, 28, 28), dtype=np.uint8),
        "train_y": np.arange(30) % 10,
        "test_x": random.integers(0, 256, (10, 1, 28, 28), dtype=np.uint8),
        "test_y": np.arange(10),
    }


def write_idx(raw, arrays, packed):
    raw.mkdir(parents=True)
    for key, name in IDX.items():
        array = arrays[key][:, 0] if key.endswith("x") else arrays[key]
        header = struct.pack(f">HBB{array.ndim}i", 0, 8, array.ndim, *array.shape)
        content = header + array.astype(np.uint8).tobytes()
        (raw / f"{name}.gz").write_bytes(gzip.compress(content)) if packed else (raw / name).write_bytes(
            content
        )


def decode_idx(raw, name):
    plain = raw / name
    content = plain.read_bytes() if plain.is_file() else gzip.decompress((raw / f"{name}.gz").read_bytes())
    dimensions = content[3]
    shape = struct.unpack_from(f">{dimensions}i", content, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def assert_standardised(dataset):
    x, y = dataset.train(np.arange(len(dataset.train_y)))
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64
    assert float(x.mean(dtype=torch.float64)) == pytest.approx(0, abs=1e-4)
    assert float(x.double().std(correction=0)) == pytest.approx(1, abs=1e-4)
    test_x, test_y = dataset.test()
    assert test_x.shape == dataset.test_x.shape
    assert test_y.tolist() == dataset.test_y.tolist()
    assert float(test_x.mean()) == pytest.approx(0, abs=0.1)


def test_digits_are_scikit_learns_each_in_one_of_the_splits(cache):
    digits = load_dataset("digits")
    assert digits.train_x.shape == (1438, 1, 8, 8)
    assert digits.test_x.shape == (359, 1, 8, 8)
    assert digits.input_shape == (1, 8, 8)
    assert digits.num_classes == 10
    given = load_digits()
    pairs = sorted((int(y), *x.astype(int).ravel()) for x, y in zip(given.images, given.target, strict=True))
    x, y = np.concatenate([digits.train_x, digits.test_x]), np.concatenate([digits.train_y, digits.test_y])
    assert sorted((int(b), *a.astype(int).ravel()) for a, b in zip(x, y, strict=True)) == pairs
    assert_standardised(digits)


def test_examples_come_in_the_order_asked_for(cache):
    digits = load_dataset("digits")
    x, y = digits.train(np.array([5, 3, 5]))
    assert y.tolist() == digits.train_y[[5, 3, 5]].tolist()
    expected = (digits.train_x[[5, 3, 5]].astype(float) - digits.train_x.mean()) / digits.train_x.std()
    np.testing.assert_allclose(x, expected, rtol=1e-4, atol=1e-5)
    x.zero_()
    y.zero_()
    assert digits.train(np.array([5]))[0].abs().sum() > 0


def test_processes_share_read_only_files(cache):
    digits = load_dataset("digits")
    for array in (digits.train_x, digits.train_y, digits.test_x, digits.test_y):
        assert isinstance(array, np.memmap)
        assert Path(array.filename).is_relative_to(cache)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_preparing_at_once_leaves_one_entry(cache):
    everyone = Barrier(4)

    def build():
        everyone.wait(60)  # nobody has written anything before all have begun
        return small_arrays()

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: prepared("toy", "somewhere", build), range(4)))
    assert len(list(cache.iterdir())) == 1
    for dataset in made:
        assert np.array_equal(dataset.train_x, small_arrays()["train_x"])


def test_what_is_prepared_is_not_built_again(cache):
    prepared("toy", "here", small_arrays)
    prepared("toy", "here", pytest.fail)
    prepared("toy", "there", small_arrays)
    prepared("game", "here", small_arrays)
    assert len(list(cache.iterdir())) == 3


@pytest.mark.parametrize("name", IMAGE_SETS)
@pytest.mark.parametrize("packed", [True, False], ids=["gz", "plain"])
@pytest.mark.parametrize("below", ["", "vision"])
@pytest.mark.parametrize("named", ["option", "variable"])
def test_idx_files_are_found_and_read(name, packed, below, named, tmp_path, cache, offline, monkeypatch):
    arrays = small_arrays()
    write_idx(tmp_path / below / IMAGE_SETS[name] / "raw", arrays, packed)
    monkeypatch.setenv("BYZFLOWER_DATA", str(tmp_path) if named == "variable" else "/nowhere")
    dataset = load_dataset(name, str(tmp_path) if named == "option" else "")
    for key, array in arrays.items():
        assert np.array_equal(getattr(dataset, key), array)
    assert dataset.num_classes == 10


@pytest.mark.parametrize("name", IMAGE_SETS)
def test_the_public_data_sets_are_decoded_as_by_hand(name, data, offline):
    dataset = load_dataset(name, str(data))
    folders = [data / below / IMAGE_SETS[name] / "raw" for below in ("", "vision")]
    raw = next(folder for folder in folders if folder.is_dir())
    assert dataset.train_x.shape == (60_000, 1, 28, 28)
    assert dataset.test_x.shape == (10_000, 1, 28, 28)
    for key, file in IDX.items():
        expected = decode_idx(raw, file)
        assert np.array_equal(np.squeeze(getattr(dataset, key)), expected)
    assert sorted(set(dataset.train_y.tolist())) == list(range(10))
    assert_standardised(dataset)


@pytest.mark.parametrize("name", IMAGE_SETS)
def test_missing_files_name_the_folder_and_the_option(name, tmp_path, cache, offline):
    (tmp_path / IMAGE_SETS[name] / "raw").mkdir(parents=True)  # a folder without the files is not enough
    with pytest.raises(DataNotFoundError, match=re.escape(str(tmp_path))) as caught:
        load_dataset(name, str(tmp_path))
    for part in ("--data", "BYZFLOWER_DATA", f"{IMAGE_SETS[name]}/raw", "no network"):
        assert part in str(caught.value)
    assert isinstance(caught.value, FileNotFoundError)
    assert not cache.exists()


def test_every_data_set_says_what_it_is():
    for load in DATASETS.values():
        assert str(load.__doc__).splitlines()[0].endswith(".")


def test_importing_the_package_does_not_import_torchvision(tmp_path):
    packages = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    modules = [
        f"{package}.{file.stem}"
        for package in packages
        for file in (REPOSITORY / "/".join(package.split(".")[1:])).glob("*.py")
        if package != "byzflower" and file.stem != "__init__"
    ]
    assert len(modules) > 30
    code = f"import importlib, sys\nfor m in {modules}: importlib.import_module(m)\n"
    code += "print([m for m in sys.modules if m.split('.')[0] == 'torchvision'])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
