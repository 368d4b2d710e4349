"""Tables of users and items: files in every form, divisions, and the published counts."""

import gzip

import numpy as np
import pytest

from byzflower.datasets import DataNotFoundError, Interactions
from byzflower.datasets.feedback import FEEDBACK


def table(rows, num_items=10):
    users = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    return Interactions.of_pairs(users, np.concatenate(rows).astype(int), len(rows), num_items)


def test_pairs_in_any_order_count_once():
    found = Interactions.of_pairs(np.array([1, 0, 1, 1, 3]), np.array([4, 2, 4, 0, 1]))
    assert [found.of(u).tolist() for u in range(4)] == [[2], [0, 4], [], [1]]
    assert (found.num_users, found.num_items) == (4, 5)
    assert found.first(2).items.tolist() == [2, 0, 4]


@pytest.mark.parametrize(
    ("splits", "items", "text"),
    [([0, 3], [1, 2], "splits do not divide 2"), ([0, 2], [1, 10], r"items are not all in \[0, 10\)")],
)
def test_impossible_tables_are_refused(splits, items, text):
    with pytest.raises(ValueError, match=text):
        Interactions(10, np.array(splits), np.array(items, np.int32))


def test_a_division_takes_each_users_share_and_at_least_one():
    whole = table([list(range(10)), [3], [], [1, 2], [0, 2, 4, 6, 8]])
    train, test = whole.divided(0.8, np.random.default_rng(0))
    assert train.counts.tolist() == [8, 1, 0, 2, 4]
    for u in range(whole.num_users):
        assert sorted([*train.of(u), *test.of(u)]) == whole.of(u).tolist()
        assert (np.diff(train.of(u)) > 0).all()
    again, _ = whole.divided(0.8, np.random.default_rng(0))
    other, _ = whole.divided(0.8, np.random.default_rng(1))
    assert again.items.tolist() == train.items.tolist() != other.items.tolist()


FILES = {
    "lastfm": ("lastfm/user_artists.dat", "userID\tartistID\tweight\r\n2\t51\t9\r\n2\t7\t1\r\n9\t51\t3\r\n"),
    "ml-100k": ("ml-100k/u.data", "5\t30\t3\t88\n5\t10\t1\t89\n7\t30\t5\t90\n"),
    "citeulike-a": ("citeulike-a/users.dat", "2 0 1\n1 1\n"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("folder", ["", "recsys"])
@pytest.mark.parametrize("packed", [False, True])
def test_files_are_read_in_every_form(tmp_path, name, folder, packed):
    path, text = FILES[name]
    target = tmp_path / folder / (path + ".gz" * packed)
    target.parent.mkdir(parents=True)
    target.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    found = FEEDBACK[name](str(tmp_path))
    assert [found.of(u).tolist() for u in range(2)] == [[0, 1], [1]]
    with pytest.raises(DataNotFoundError, match=r"--data or BYZFLOWER_DATA"):
        FEEDBACK[name](str(tmp_path / "elsewhere"))


COUNTS = {
    "lastfm": (1892, 17632, 92834),
    "ml-100k": (943, 1682, 100000),
    "citeulike-a": (5551, 16980, 204986),
    "citeulike-t": (7947, 25975, 134860),
}


@pytest.mark.parametrize("name", COUNTS)
def test_the_public_files_have_the_published_counts(data, name):
    found = FEEDBACK[name](str(data))
    assert (found.num_users, found.num_items, len(found.items)) == COUNTS[name]
    assert (found.counts > 0).all()
