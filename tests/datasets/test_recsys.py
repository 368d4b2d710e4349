"""Data sets of recommenders: files in every form, ready-made splits, and the published counts."""

import gzip

import numpy as np
import pytest

from byzflower.datasets import DataNotFoundError
from byzflower.datasets.recsys import FEEDBACK, load_feedback, read_split, read_steam

FILES = {
    "lastfm": ("lastfm/user_artists.dat", "userID\tartistID\tweight\r\n2\t51\t9\r\n2\t7\t1\r\n9\t51\t3\r\n"),
    "ml-100k": ("ml-100k/u.data", "5\t30\t3\t88\n5\t10\t1\t89\n7\t30\t5\t90\n"),
    "ml-1m": ("ml-1m/ratings.dat", "5::30::3::88\n5::10::1::89\n7::30::5::90\n"),
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


def test_missing_files_are_named(tmp_path, monkeypatch):
    with pytest.raises(DataNotFoundError, match=r"u\.data was found below"):
        FEEDBACK["ml-100k"](str(tmp_path))
    monkeypatch.delenv("BYZFLOWER_DATA", raising=False)
    with pytest.raises(DataNotFoundError, match=r"u\.data was found anywhere"):
        FEEDBACK["ml-100k"]("")


def test_ready_made_splits_keep_their_ids_and_are_made_again(tmp_path):
    (tmp_path / "train.txt").write_text("0 5 2\n1 3\n")
    (tmp_path / "test.txt").write_text("0 1\n1 7\n")
    train, test = read_split(tmp_path).leave_one_out()
    assert [train.of(u).tolist() for u in range(2)] == [[2, 5], [3]]
    assert (test.items.tolist(), train.num_items) == ([1, 7], 8)
    (tmp_path / "test.txt").write_text("0 1\n")
    with pytest.raises(ValueError, match="do not have the same users"):
        read_split(tmp_path)
    (tmp_path / "test.txt").write_text("0 1 2\n1 7\n")
    with pytest.raises(ValueError, match="one item per user"):
        read_split(tmp_path)


def test_steam_counts_a_game_once_and_drops_users_with_few(tmp_path):
    lines = [
        f'{user},"Game, {g}",{what},1.0,0'
        for user in (8, 9)
        for g in range(5)
        for what in ("purchase", "play")
    ]
    path = tmp_path / "steam-200k.csv"
    path.write_text("\n".join([*lines, '5,"Game, 1",purchase,1.0,0', '5,"Other",purchase,1.0,0']) + "\n")
    found = read_steam(path)
    assert (found.num_users, found.num_items, len(found.items)) == (2, 5, 10)


@pytest.mark.parametrize("name", ["synthetic", "synthetic-small"])
def test_made_up_feedback_has_a_long_tail_and_is_always_the_same(name):
    found, again = (FEEDBACK[name]("") for _ in range(2))
    assert np.array_equal(found.items, again.items)
    assert np.array_equal(found.order, again.order)
    assert all((np.diff(found.of(user)) > 0).all() for user in range(found.num_users))
    degrees = np.sort(found.popularity)
    assert degrees[-len(degrees) // 5 :].sum() > degrees[: len(degrees) // 2].sum()


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("citeulike-a", (5551, 16980, 204_986)),
        ("citeulike-t", (7947, 25975, 134_860)),
        ("lastfm", (1892, 17632, 92_834)),
        ("ml-100k", (943, 1682, 100_000)),
        ("ml-100k-split", (943, 1682, 99_999)),
        ("ml-1m", (6040, 3706, 1_000_209)),
        ("steam-split", (3753, 5134, 114_713)),
    ],
)
def test_the_public_files_have_the_published_counts(name, counts, data):
    found = load_feedback(name, str(data))
    assert (found.num_users, found.num_items, len(found.items)) == counts
    assert (found.counts > 0).all()


def test_the_rule_rebuilds_the_published_split(data):
    made, known = (load_feedback(name, str(data)).leave_one_out() for name in ("ml-100k", "ml-100k-split"))
    # The published one lost the file's first row, and numbers users and items otherwise.
    assert len(made.train.items) == len(known.train.items) + 1
    assert len(made.test.items) == len(known.test.items)
    assert abs(np.sort(made.train.popularity) - np.sort(known.train.popularity)).sum() <= 2
