"""Implicit feedback: splits by hand, and the published statistics."""

import numpy as np
import pytest

from byzflower.datasets.base import DataNotFoundError
from byzflower.datasets.recsys import FEEDBACK, leave_one_out, load_feedback, read_split, read_steam


def test_the_latest_interaction_is_held_out_and_pairs_count_once():
    users = np.array([7, 3, 7, 7, 3, 7, 9])
    items = np.array([50, 50, 20, 50, 30, 40, 20])
    times = np.array([5, 1, 3, 9, 1, 5, 2.0])
    feedback = leave_one_out(users, items, times)
    # 7 -> 0, 3 -> 1, 9 -> 2; 50 -> 0, 20 -> 1, 30 -> 2, 40 -> 3. 7's second 50 does not count.
    assert [feedback.of(u).tolist() for u in range(3)] == [[0, 1], [0], [1]]
    assert feedback.test.tolist() == [3, 2, -1]  # equal times: the last in the file; one item: none
    assert (feedback.num_users, feedback.num_items, feedback.num_interactions) == (3, 4, 6)
    assert feedback.popularity.tolist() == [2, 2, 0, 0]
    assert feedback.touched(0).tolist() == [0, 1, 3]
    assert feedback.touched(2).tolist() == [1]


def test_without_times_a_seeded_random_one_is_held_out():
    users, items = np.repeat([0, 1], 50), np.tile(np.arange(50), 2)
    first, again, other = (leave_one_out(users, items, None, seed).test for seed in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()
    assert first[0] != first[1]


def test_ready_made_splits_keep_their_ids(tmp_path):
    (tmp_path / "train.txt").write_text("0 5 2\n1 3\n")
    (tmp_path / "test.txt").write_text("0 1\n1 7\n")
    feedback = read_split(tmp_path)
    assert [feedback.of(u).tolist() for u in range(2)] == [[2, 5], [3]]
    assert (feedback.test.tolist(), feedback.num_items) == ([1, 7], 8)
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
    feedback = read_steam(path)
    assert (feedback.num_users, feedback.num_items, feedback.num_interactions) == (2, 5, 10)


@pytest.mark.parametrize("name", ["synthetic", "synthetic-small"])
def test_made_up_feedback_has_a_long_tail_and_is_always_the_same(name):
    feedback, again = (FEEDBACK[name]("") for _ in range(2))
    assert np.array_equal(feedback.items, again.items)
    assert np.array_equal(feedback.test, again.test)
    for user in range(feedback.num_users):
        own = feedback.of(user)
        assert (np.diff(own) > 0).all()
        assert feedback.test[user] not in own
    degrees = np.sort(feedback.popularity)
    assert degrees[-len(degrees) // 5 :].sum() > degrees[: len(degrees) // 2].sum()


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("ml-100k", (943, 1682, 100_000)),
        ("ml-100k-split", (943, 1682, 99_999)),
        ("steam-split", (3753, 5134, 114_713)),
        ("ml-1m", (6040, 3706, 1_000_209)),
    ],
)
def test_published_statistics(name, counts, data):
    feedback = load_feedback(name, str(data))
    assert (feedback.num_users, feedback.num_items, feedback.num_interactions) == counts


def test_the_rule_rebuilds_the_published_split(data):
    made, known = (load_feedback(name, str(data)) for name in ("ml-100k", "ml-100k-split"))
    # The published one lost the file's first row; users and items are numbered by first appearance there.
    assert made.num_interactions == known.num_interactions + 1
    assert abs(np.sort(made.popularity) - np.sort(known.popularity)).sum() <= 2


def test_missing_files_are_named(tmp_path):
    with pytest.raises(DataNotFoundError, match=r"u\.data was found below"):
        FEEDBACK["ml-100k"](str(tmp_path))
