"""Medians of many rows are what sorting gives, to the bit."""

import numpy as np
import pytest
import torch

from byzflower.strategies.columns import _middle_of_halves, _middle_of_parts, column_median
from byzflower.strategies.rows import Rows


def _by_sorting(values):
    middle = np.sort(values, axis=-1)[..., (values.shape[-1] - 1) // 2 : values.shape[-1] // 2 + 1]
    return middle.mean(axis=-1, dtype=np.float64).astype(np.float32)


@pytest.mark.parametrize("n", range(2, 13))
@pytest.mark.parametrize("select", [_middle_of_halves, _middle_of_parts])
def test_every_input_of_zeros_and_ones_has_its_middle(n, select):
    """What only compares and is right on all of them is right on everything (the 0-1 principle)."""
    values = ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(np.float32)
    np.testing.assert_array_equal(np.mean(select(values.copy()), axis=0), _by_sorting(values))


@pytest.mark.parametrize("n", [512, 513, 514, 1023, 1024, 1025, 1026, 3001])
@pytest.mark.parametrize("kind", ["normal", "ties", "ascending", "huge"])
def test_medians_of_many_rows(n, kind):
    random = np.random.default_rng(n)
    values = random.normal(size=(n, 37)).astype(np.float32)
    if kind == "ties":
        values = random.integers(-2, 3, (n, 37)).astype(np.float32)
    if kind == "ascending":
        values.sort(axis=0)
    if kind == "huge":
        values *= np.float32(3e37)
    matrix = torch.from_numpy(values.copy())
    result = column_median(Rows.of(matrix))
    np.testing.assert_array_equal(result.numpy(), _by_sorting(values.T))
    np.testing.assert_array_equal(values, matrix.numpy())


def test_one_column_is_not_written_to():
    values = torch.randn(700, 1)
    before = values.clone()
    column_median(Rows.of(values))
    assert torch.equal(values, before)
