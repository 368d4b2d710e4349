"""Tables of users and items, and their divisions, by hand."""

import numpy as np
import pytest

from byzflower.datasets import Interactions, Split


def table(rows, num_items=10):
    users = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    return Interactions.of_pairs(users, np.concatenate(rows).astype(int), len(rows), num_items)


def test_pairs_in_any_order_count_once():
    found = Interactions.of_pairs(np.array([1, 0, 1, 1, 3]), np.array([4, 2, 4, 0, 1]))
    assert [found.of(u).tolist() for u in range(4)] == [[2], [0, 4], [], [1]]
    assert (found.num_users, found.num_items) == (4, 5)
    assert found.order.tolist() == [1, 2, 0, 3]
    assert found.popularity.tolist() == [1, 1, 1, 0, 1]
    assert found.first(2).items.tolist() == [2, 0, 4]
    assert found.first(2).order.tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("splits", "items", "text"),
    [([0, 3], [1, 2], "splits do not divide 2"), ([0, 2], [1, 10], r"items are not all in \[0, 10\)")],
)
def test_impossible_tables_are_refused(splits, items, text):
    with pytest.raises(ValueError, match=text):
        Interactions(10, np.array(splits), np.array(items, np.int32), np.arange(2))


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


def test_the_latest_interaction_is_held_out():
    users = np.array([0, 1, 0, 0, 1, 0, 2])
    items = np.array([5, 5, 2, 5, 3, 4, 2])
    times = np.array([5, 1, 3, 9, 1, 5, 2.0])
    train, test = Interactions.of_pairs(users, items, times=times).leave_one_out()
    # User 0's second 5 does not count; at equal times the last in the file; a single item is kept.
    assert [train.of(u).tolist() for u in range(3)] == [[2, 5], [5], [2]]
    assert [test.of(u).tolist() for u in range(3)] == [[4], [3], []]
    assert [Split(train, test).touched(u).tolist() for u in range(3)] == [[2, 4, 5], [3, 5], [2]]


def test_without_times_a_seeded_random_one_is_held_out():
    whole = table([list(range(50)), list(range(50)), []], 50)
    first, again, other = (whole.leave_one_out(seed).test.items.tolist() for seed in (1, 1, 2))
    assert first == again != other
    assert len(first) == 2
    assert first[0] != first[1]
