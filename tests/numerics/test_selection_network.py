"""Networks sort, and what is cut from them was not needed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byzflower.numerics.selection_network import (
    select_middle,
    selection_network,
    sort_rows,
    sorting_network,
)


@pytest.mark.parametrize("n", [*range(1, 13)])
def test_every_input_of_zeros_and_ones_is_sorted(n):
    """A network that sorts all of them sorts everything (the 0-1 principle)."""
    values = ((np.arange(2**n)[None] >> np.arange(n)[:, None]) & 1).astype(np.int8)
    expected = np.sort(values, axis=0)
    for low, high in sorting_network(n):
        pair = values[[low, high]]
        values[low], values[high] = pair.min(axis=0), pair.max(axis=0)
    np.testing.assert_array_equal(values, expected)


@st.composite
def cases(draw):
    n = draw(st.integers(1, 48))
    first = draw(st.integers(0, n - 1))
    return n, first, draw(st.integers(first + 1, n)), draw(st.integers(0, 2**32))


@settings(max_examples=150, deadline=None)
@given(cases())
def test_the_wanted_ranks_are_there(case):
    n, first, last, seed = case
    values = np.random.default_rng(seed).integers(-9, 9, size=(n, 30)).astype(np.float32)
    block = np.concatenate([values, np.full((1, 30), np.nan, np.float32)])
    middle = np.stack(select_middle(block, first, last))
    np.testing.assert_array_equal(np.sort(middle, axis=0), np.sort(values, axis=0)[first:last])


@pytest.mark.parametrize("n", [1, 2, 7, 31, 48])
def test_whole_rows_are_sorted(n):
    values = np.random.default_rng(n).integers(-9, 9, size=(n, 200)).astype(np.float32)
    block = np.concatenate([values, np.full((1, 200), np.nan, np.float32)])
    np.testing.assert_array_equal(np.stack(sort_rows(block)), np.sort(values, axis=0))


def test_a_median_needs_less_than_a_sort():
    whole = sum(e.keep_low + e.keep_high for e in selection_network(25, 0, 25))
    assert whole == 0  # all values, in any order: nothing to do
    median = selection_network(25, 12, 13)
    assert len(median) < len(sorting_network(25))
    assert sum(e.keep_low + e.keep_high for e in median) < 1.7 * len(sorting_network(25))
