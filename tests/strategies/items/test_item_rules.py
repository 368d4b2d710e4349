"""Per-item rules against a plain loop over items with the dense rule."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from byzflower.strategies import (
    TooFewClients,
    centered_clipping,
    geometric_median,
    krum,
    mean,
    median,
    multi_krum,
    norm_clipping,
    trimmed_mean,
)
from byzflower.strategies.items import (
    ITEM_STRATEGIES,
    ItemCenteredClipping,
    ItemKrum,
    ItemMean,
    ItemMedian,
    ItemMultiKrum,
    ItemNorm,
    ItemRFA,
    ItemRows,
    ItemTrimmedMean,
    item_centered_clipping,
)
from byzflower.strategies.items.bounded import FALLBACK

D = 5


def uploads(degrees, seed=0, num_clients=None):
    """Clients, splits, items and values in which item j has degrees[j] rows of random clients."""
    random = np.random.default_rng(seed)
    n = num_clients or max([1, *degrees])
    pairs = sorted((int(c), j) for j, k in enumerate(degrees) for c in random.choice(n, k, replace=False))
    clients = np.array([c for c, _ in pairs], np.int64)
    items = np.array([j for _, j in pairs], np.int32)
    splits = np.searchsorted(clients, np.arange(n + 1)).astype(np.int64)
    values = random.normal(size=(len(pairs), D)).astype(np.float32)
    return np.arange(n), splits, items, values


def rows_of(degrees, seed=0):
    clients, splits, items, values = uploads(degrees, seed)
    return ItemRows(values, clients, splits, items, len(degrees)), items, values


def looped(rule, items, values):
    """The rule on the rows of each item that has any, in the items' order."""
    return torch.stack([rule(torch.from_numpy(values[items == j])) for j in np.unique(items)])


def or_median(rule):
    def safe(matrix):
        try:
            return rule(matrix).gradient
        except TooFewClients:
            return median(matrix).gradient

    return safe


F = 3
RULES = {
    "mean": (ItemMean(), lambda x: mean(x)),
    "median": (ItemMedian(), lambda x: median(x)),
    "trimmedmean": (ItemTrimmedMean(F), lambda x: trimmed_mean(x, F)),
    "norm": (ItemNorm(1.5), lambda x: norm_clipping(x, 1.5)),
    "rfa": (ItemRFA(), lambda x: geometric_median(x)),
    "krum": (ItemKrum(F), lambda x: krum(x, F)),
    "multikrum": (ItemMultiKrum(F), lambda x: multi_krum(x, F)),
}


@pytest.mark.parametrize("name", RULES)
@settings(deadline=None, max_examples=8)
@given(
    degrees=st.lists(st.sampled_from([0, 1, 2, 3, 6, 8, 9, 30, 60]), min_size=1, max_size=12),
    seed=st.integers(0, 9),
)
def test_every_item_gets_what_the_dense_rule_makes_of_its_rows(name, degrees, seed):
    if not any(degrees):
        degrees = [*degrees, 1]
    strategy, dense = RULES[name]
    rows, items, values = rows_of(degrees, seed)
    result = strategy.aggregate_items(rows)
    assert rows.items.tolist() == [j for j, k in enumerate(degrees) if k]
    expected = looped(or_median(dense), items, values)
    if name in ("median", "krum"):
        assert torch.equal(result.gradients, expected)
    torch.testing.assert_close(result.gradients, expected, rtol=1e-5, atol=1e-6)
    if FALLBACK in result.info:
        fewest = 2 * F + (1 if name == "trimmedmean" else 3)
        assert result.info[FALLBACK] == sum(0 < k < fewest for k in degrees)


@pytest.mark.parametrize("name", RULES)
def test_an_item_with_thousands_of_rows_is_no_other_matter(name):
    strategy, dense = RULES[name]
    rows, items, values = rows_of([3000, 2, 0, 500])
    expected = looped(or_median(dense), items, values)
    torch.testing.assert_close(strategy.aggregate_items(rows).gradients, expected, rtol=1e-4, atol=1e-6)


def test_centered_clipping_moves_each_item_from_its_own_reference():
    rows, items, values = rows_of([7, 1, 0, 40])
    reference = torch.randn(3, D, generator=torch.Generator().manual_seed(1))
    result = item_centered_clipping(rows, reference, tau=0.7, iterations=3).gradients
    for place, item in enumerate(np.unique(items)):
        mine = torch.from_numpy(values[items == item])
        expected = centered_clipping(mine, reference[place], 0.7, 3).gradient
        torch.testing.assert_close(result[place], expected, rtol=1e-5, atol=1e-6)


# -- the conventions of Spattack's experiments, written out -------------------------------------------------


def spattack_trimmed(rows, k):
    c = len(rows)
    if c <= k:
        return np.median(rows, axis=0)
    out = []
    for column in rows.T:
        center = np.median(column)
        out.append(np.mean(sorted(column, key=lambda x: (abs(x - center), x))[: c - k]))
    return np.array(out)


def spattack_krum(rows, k):
    c = len(rows)
    count = c - k - 2 if c > k + 2 else c - k if c > k else c - 1
    if count == 0:
        return rows[0]
    away = [sorted(np.linalg.norm(a - b) for j, b in enumerate(rows) if j != i) for i, a in enumerate(rows)]
    return rows[int(np.argmin([sum(own[:count]) for own in away]))]


@pytest.mark.parametrize(
    ("strategy", "reference"),
    [(ItemTrimmedMean(F, "spattack"), spattack_trimmed), (ItemKrum(F, "spattack"), spattack_krum)],
)
def test_spattacks_convention(strategy, reference):
    rows, items, values = rows_of([1, 2, 3, 4, 5, 6, 7, 20], seed=3)
    got = strategy.aggregate_items(rows).gradients
    for place, item in enumerate(np.unique(items)):
        expected = reference(values[items == item].astype(np.float64), F)
        np.testing.assert_allclose(got[place], expected, rtol=1e-5, atol=1e-6)


def test_rows_are_taken_in_the_order_of_the_clients_wherever_they_are():
    clients, splits, items, values = uploads([5, 9, 2], seed=4)
    order = np.random.default_rng(0).permutation(len(clients))
    sizes = np.diff(splits)[order]
    taken = np.concatenate([np.arange(splits[i], splits[i + 1]) for i in order])
    mixed = ItemRows(values[taken], clients[order], np.concatenate([[0], np.cumsum(sizes)]), items[taken], 3)
    plain = ItemRows(values, clients, splits, items, 3)
    for strategy in (ItemMean(), ItemMedian(), ItemKrum(1)):
        a, b = (strategy.aggregate_items(rows).gradients for rows in (plain, mixed))
        assert torch.equal(a, b)


def test_huge_rows_do_not_destroy_what_is_robust():
    clients, splits, items, values = uploads([9])
    values[4] = 1e30
    rows = ItemRows(values, clients, splits, items, 1)
    for strategy in (ItemMedian(), ItemTrimmedMean(2), ItemKrum(2), ItemMultiKrum(2), ItemNorm()):
        assert strategy.aggregate_items(rows).gradients.abs().max() < 5, type(strategy)


def test_std_is_the_standard_deviation():
    rows, items, values = rows_of([1, 4, 30])
    expected = np.stack([values[items == j].std(axis=0) for j in range(3)])
    np.testing.assert_allclose(rows.std(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(ITEM_STRATEGIES))
@pytest.mark.parametrize("option", [{"upload": "weights"}, {"device": "cuda"}, {"pre": ()}])
def test_options_that_make_no_sense_here_are_refused(name, option):
    with pytest.raises(ValueError, match=f"item strategies take no {next(iter(option))}"):
        ITEM_STRATEGIES[name](**option)


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="convention must be standard or spattack, got 'mine'"):
        ItemKrum(1, "mine")
    with pytest.raises(ValueError, match="num_byzantine must not be negative, got -1"):
        ItemTrimmedMean(-1)
    with pytest.raises(ValueError, match="server_optimizer must be sgd or adam, got 'lamb'"):
        ItemMean(server_optimizer="lamb")
    with pytest.raises(ValueError, match="tau must be positive"):
        ItemCenteredClipping(tau=0)
