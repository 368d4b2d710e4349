"""Medians of many rows are what sorting gives, to the bit."""

import numpy as np
import pytest
import torch

from byzflower.numerics.columns import column_median
from byzflower.numerics.rows import Rows


def _by_sorting(values):
    middle = np.sort(values, axis=-1)[..., (values.shape[-1] - 1) // 2 : values.shape[-1] // 2 + 1]
    return middle.mean(axis=-1, dtype=np.float64).astype(np.float32)


@pytest.mark.parametrize("n", [49, 50, 512, 513, 514, 1023, 1024, 1025, 1026, 3001])
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
