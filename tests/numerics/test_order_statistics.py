"""Order statistics equal what sorting gives."""

import numpy as np
import pytest

from byzflower.numerics import order_statistics as module
from byzflower.numerics.order_statistics import order_statistics

KINDS = [
    "normal",
    "ties",
    "ascending",
    "descending",
    "one value",
    "infinite",
    "nan",
    "half equal",
    "one part",
    "zeros",
]


def _parts(n, dtype):
    count = -(-n * np.dtype(dtype).itemsize // 2048)
    return count | 1 if count > 8 else count


def _rows(kind, n, dtype):
    random = np.random.default_rng(n)
    values = random.normal(size=(9, n)).astype(dtype)
    if kind == "ties":
        values = random.integers(-2, 3, (9, n)).astype(dtype)
    if kind in ("ascending", "descending"):
        values.sort(axis=1)
    if kind == "descending":
        values = values[:, ::-1]
    if kind == "one value":
        values[:] = 1.5
    if kind == "infinite":
        values[:, : n // 3] = np.inf
        values[:, n // 3 : n // 2] = -np.inf
    if kind == "nan":
        values[:4, : n // 2] = np.nan
    if kind == "half equal":
        values[:, n // 2 :] = values[:, :1]
    if kind == "one part":  # one part has all the great ones
        values[:, :: _parts(n, dtype)] += 5
    if kind == "zeros":
        values[:, random.random(n) < 0.9] = 0
    return values


@pytest.mark.parametrize("n", [1, 2, 256, 257, 512, 513, 1024, 1025, 5000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_any_place_of_any_rows(kind, dtype, n):
    values = _rows(kind, n, dtype)
    before = values.copy()
    ascending = np.sort(values, axis=1)
    for first in {0, n // 10, (n - 1) // 2, n // 2, 9 * n // 10, n - 1}:
        for last in {first + 1, min(first + 2, n)}:
            for layout in (values, np.asfortranarray(values)):
                found = order_statistics(layout, first, last)
                assert found.dtype == dtype
                np.testing.assert_array_equal(found, ascending[:, first:last].T)
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("n", [1 << 17, 100_003])
@pytest.mark.parametrize("kind", ["normal", "zeros", "one part"])
def test_long_rows(kind, n):
    values = _rows(kind, n, np.float32)
    ascending = np.sort(values, axis=1)
    for first in (0, n // 3, n - 1):
        np.testing.assert_array_equal(order_statistics(values, first, first + 1)[0], ascending[:, first])


def test_half_precision_read_only_no_rows_and_many_places():
    values = _rows("normal", 3000, np.float16)
    values.flags.writeable = False
    ascending = np.sort(values, axis=1)
    for first, last in ((0, 1), (100, 2900), (1400, 1600), (0, 3000)):
        np.testing.assert_array_equal(order_statistics(values, first, last), ascending[:, first:last].T)
    assert order_statistics(values[:0], 1499, 1501).shape == (2, 0)


@pytest.mark.parametrize("n", range(9, 14))
def test_every_input_of_zeros_and_ones(n, monkeypatch):
    """What only compares, by <=, and is right on all of them is right on everything (the 0-1 principle)."""
    monkeypatch.setattr(module, "_SORTED_BYTES", 32)
    values = ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(np.float32)
    ascending = np.sort(values, axis=1)
    for first in range(n):
        for last in {first + 1, min(first + 2, n)}:
            np.testing.assert_array_equal(order_statistics(values, first, last), ascending[:, first:last].T)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("infinite", "nan", "one part")])
def test_few_rows_need_to_be_sorted_whole(kind, monkeypatch):
    whole = []
    by_sorting = module._by_sorting

    def counted(values, first, last):
        whole.append(len(values) if values.shape[1] == 3000 else 0)
        return by_sorting(values, first, last)

    monkeypatch.setattr(module, "_by_sorting", counted)
    order_statistics(_rows(kind, 3000, np.float32), 1499, 1501)
    assert sum(whole) == 0
    order_statistics(_rows("one part", 3000, np.float32), 1499, 1501)
    assert sum(whole) == 9
