"""Partitions: every sample exactly once, as unbalanced as asked for, and never too small a part."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byzflower.datasets import class_counts, make_partition

SCHEMES = ["iid", "dirichlet", "shards"]


def labels_of(sizes, random):
    """Shuffled labels with that many of each class."""
    return random.permutation(np.repeat(np.arange(len(sizes)), sizes))


def generator(seed=0):
    return np.random.default_rng(seed)


@st.composite
def cases(draw):
    sizes = draw(st.lists(st.integers(0, 60), min_size=1, max_size=10).filter(sum))
    m = sum(sizes)
    n = draw(st.integers(1, min(m, 40)))
    random = generator(draw(st.integers(0, 2**32)))
    options = {
        "alpha": 10.0 ** draw(st.integers(-12, 4)),
        "min_size": draw(st.sampled_from([1, m // n]) | st.integers(1, m // n)),
        "shards_per_client": draw(st.integers(1, max(1, min(4, m // n)))),
    }
    return labels_of(sizes, random), n, random, options


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(max_examples=100, deadline=None)
@given(cases())
def test_every_sample_goes_to_exactly_one_client(scheme, case):
    labels, n, random, options = case
    parts = make_partition(scheme, labels, n, random, **{**options, "min_size": 1})
    assert len(parts) == n
    assert np.sort(np.concatenate(parts)).tolist() == list(range(len(labels)))
    for part in parts:
        assert part.dtype == np.int64
        assert np.array_equal(part, np.sort(part))


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(max_examples=100, deadline=None)
@given(cases())
def test_no_client_gets_less_than_asked_for(scheme, case):
    labels, n, random, options = case
    try:
        parts = make_partition(scheme, labels, n, random, **options)
    except ValueError as refused:
        assert scheme == "shards"  # whole shards only: may be impossible
        assert str(options["min_size"]) in str(refused)  # noqa: PT017
    else:
        assert min(map(len, parts)) >= options["min_size"]
        assert sum(map(len, parts)) == len(labels)


def test_no_client_is_left_without_a_shard_to_train_on():
    """15 samples in 20 shards: five are empty, and some client could be dealt two of those."""
    labels = labels_of([15], generator())
    for seed in range(20):
        try:
            parts = make_partition("shards", labels, 10, generator(seed), shards_per_client=2)
        except ValueError:
            continue
        assert min(map(len, parts)) >= 1


@pytest.mark.parametrize("alpha", [1e-300, 1e-12, 1e-3])
def test_many_clients_all_get_something_however_small_alpha_is(alpha):
    labels = labels_of([30] * 10, generator())
    parts = make_partition("dirichlet", labels, 50, generator(1), alpha=alpha, min_size=6)
    assert [len(part) for part in parts] == [6] * 50
    parts = make_partition("dirichlet", labels, 50, generator(1), alpha=alpha, min_size=2)
    assert min(map(len, parts)) >= 2
    assert sum(map(len, parts)) == 300


@settings(max_examples=50)
@given(cases())
def test_iid_sizes_differ_by_at_most_one(case):
    labels, n, random, _ = case
    sizes = [len(part) for part in make_partition("iid", labels, n, random)]
    assert max(sizes) - min(sizes) <= 1


def test_iid_parts_look_like_the_whole():
    labels = labels_of([5000, 3000, 2000], generator())
    counts = class_counts(make_partition("iid", labels, 5, generator(1)), labels, 3)
    np.testing.assert_allclose(counts / counts.sum(1, keepdims=True), [[0.5, 0.3, 0.2]] * 5, atol=0.04)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(20, 60), min_size=2, max_size=10),
    st.integers(1, 3),
    st.integers(0, 2**32),
    st.data(),
)
def test_a_shard_holds_at_most_two_labels(sizes, shards, seed, data):
    """Shards no longer than the smallest class touch at most one border between classes."""
    random = generator(seed)
    labels = labels_of(sizes, random)
    fewest = -(-len(labels) // (min(sizes) * shards))
    n = data.draw(st.integers(fewest, max(fewest, len(labels) // shards)))
    parts = make_partition("shards", labels, n, random, shards_per_client=shards)
    assert max(len(np.unique(labels[part])) for part in parts) <= 2 * shards


def test_shards_are_dealt_at_random():
    labels = labels_of([40] * 10, generator())
    first, second = (make_partition("shards", labels, 20, generator(seed)) for seed in (1, 2))
    pairs = {tuple(np.unique(labels[part])) for part in first}
    assert len(pairs) > 5
    assert any(not np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_lower_alpha_is_less_balanced():
    labels = labels_of([100] * 10, generator())

    def skew(alpha):
        """Mean share of a client's largest class."""
        shares = []
        for seed in range(10):
            counts = class_counts(
                make_partition("dirichlet", labels, 10, generator(seed), alpha=alpha), labels, 10
            )
            shares.append(np.mean(counts.max(1) / counts.sum(1)))
        return np.mean(shares)

    skews = [skew(alpha) for alpha in (0.01, 0.1, 0.5, 2.0, 1000.0)]
    assert skews == sorted(skews, reverse=True)
    assert skews[0] > 0.7  # nearly one class each
    assert skews[-1] < 0.15  # nearly a tenth of each


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_same_seed_gives_the_same_partition(scheme):
    labels = labels_of([50] * 4, generator())
    one, again, other = (make_partition(scheme, labels, 7, generator(seed)) for seed in (5, 5, 6))
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_labels_are_left_alone(scheme):
    labels = labels_of([20] * 3, generator())
    labels.flags.writeable = False
    make_partition(scheme, labels, 4, generator())


@pytest.mark.parametrize(
    ("scheme", "n", "options", "text"),
    [
        ("iid", 31, {}, "30 samples cannot give 31 clients at least 1 each"),
        ("shards", 31, {}, "30 samples cannot give 31 clients at least 1 each"),
        ("dirichlet", 8, {"min_size": 4}, "30 samples cannot give 8 clients at least 4 each"),
        ("dirichlet", 3, {"alpha": 0.0}, "alpha must be positive.*, got 0.0"),
        ("dirichlet", 3, {"alpha": -1.0}, "alpha must be positive.*, got -1.0"),
        ("dirichlet", 3, {"alpha": float("nan")}, "alpha must be positive.*, got nan"),
        ("dirichlet", 3, {"alpha": float("inf")}, "alpha must be positive.*, got inf"),
        ("shards", 3, {"shards_per_client": 0}, "shards_per_client must be at least 1, got 0"),
        ("label-skew", 3, {}, "unknown partition 'label-skew': iid, dirichlet or shards"),
    ],
)
def test_impossible_partitions_are_refused_with_the_numbers(scheme, n, options, text):
    with pytest.raises(ValueError, match=text):
        make_partition(scheme, labels_of([10] * 3, generator()), n, generator(), **options)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_table_of_classes_adds_up(scheme):
    sizes = [30, 0, 7, 23]
    labels = labels_of(sizes, generator())
    parts = make_partition(scheme, labels, 6, generator(1))
    table = class_counts(parts, labels, 5)
    assert table.shape == (6, 5)
    assert table.sum(axis=0).tolist() == [*sizes, 0]
    assert table.sum(axis=1).tolist() == [len(part) for part in parts]
    assert table[2].tolist() == [sum(labels[i] == c for i in parts[2]) for c in range(5)]
