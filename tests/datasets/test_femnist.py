"""FEMNIST as LEAF writes it, and clients that are writers."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byzflower.clients.data import training_data
from byzflower.clients.settings import ClientSettings
from byzflower.datasets import DataNotFoundError, load_dataset, partition_natural

SIZES = {"w_c": 3, "w_a": 5, "w_b": 1}


def write(folder, random):
    """Three writers in two files; returns what each wrote."""
    content = {}
    for split in ("train", "test"):
        (folder / split).mkdir(parents=True)
        for number, names in enumerate((["w_c", "w_a"], ["w_b"])):
            users = {
                name: (random.integers(0, 256, (SIZES[name], 784)), random.integers(0, 62, SIZES[name]))
                for name in names
            }
            content.update({(split, name): pair for name, pair in users.items()})
            text = {
                "users": names,
                "num_samples": [SIZES[name] for name in names],
                "user_data": {
                    name: {"x": (x / 255).tolist(), "y": y.tolist()} for name, (x, y) in users.items()
                },
            }
            (folder / split / f"all_data_{number}.json").write_text(json.dumps(text))
    return content


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BYZFLOWER_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("below", ["femnist", "vision/femnist", "femnist/data"])
def test_writers_are_read_in_the_order_of_their_names(below, tmp_path, cache):
    content = write(tmp_path / below, np.random.default_rng(0))
    dataset = load_dataset("femnist", str(tmp_path))
    order = sorted(SIZES)
    for split in ("train", "test"):
        x = np.concatenate([content[split, name][0] for name in order]).reshape(-1, 1, 28, 28)
        y = np.concatenate([content[split, name][1] for name in order])
        assert np.array_equal(getattr(dataset, f"{split}_x"), x)
        assert np.array_equal(getattr(dataset, f"{split}_y"), y)
    assert dataset.train_groups.tolist() == [0] * 5 + [1] + [2] * 3


def test_every_client_is_a_writer(tmp_path, cache):
    write(tmp_path / "femnist", np.random.default_rng(1))
    settings = {"dataset": "femnist", "data": str(tmp_path), "partition": "natural", "byzantine": 0}
    _, parts = training_data(ClientSettings(clients=3, **settings))
    assert [part.tolist() for part in parts] == [[0, 1, 2, 3, 4], [5], [6, 7, 8]]
    _, parts = training_data(ClientSettings(clients=2, min_size=2, **settings))
    assert [part.tolist() for part in parts] == [[0, 1, 2, 3, 4], [6, 7, 8]]
    with pytest.raises(ValueError, match="2 natural clients have at least 2 samples, 3 are needed"):
        training_data(ClientSettings(clients=3, min_size=2, **settings))


def test_data_without_writers_has_no_natural_clients():
    with pytest.raises(ValueError, match="data set 'digits' has no natural clients"):
        training_data(ClientSettings(partition="natural"))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(0, 2**32), st.data())
def test_natural_clients_keep_what_is_theirs(groups, seed, data):
    groups = np.array(groups)
    n = data.draw(st.integers(1, len(set(groups.tolist()))))
    parts = partition_natural(groups, n, np.random.default_rng(seed))
    assert len(parts) == n
    names = [set(groups[part].tolist()) for part in parts]
    assert all(len(name) == 1 for name in names)
    assert len(set.union(*names)) == n
    for part in parts:
        assert np.array_equal(part, np.flatnonzero(groups == groups[part[0]]))


def test_missing_or_broken_files_are_named(tmp_path, cache):
    (tmp_path / "femnist" / "train").mkdir(parents=True)
    with pytest.raises(DataNotFoundError, match=re.escape(str(tmp_path))) as caught:
        load_dataset("femnist", str(tmp_path))
    for part in ("femnist/train/*.json", "LEAF", "--data", "BYZFLOWER_DATA"):
        assert part in str(caught.value)
    (tmp_path / "femnist" / "test").mkdir()
    for split in ("train", "test"):
        (tmp_path / "femnist" / split / "a.json").write_text('{"users": []}')
    with pytest.raises(DataNotFoundError, match=r"a.json cannot be read"):
        load_dataset("femnist", str(tmp_path))
