"""Sums over the long axis against plain float64 NumPy."""

import numpy as np
import pytest
import torch

from byzflower.numerics import reductions as rows
from byzflower.numerics import threads


def matrix(m, d, dtype=np.float32, seed=0, scale=1.0):
    return (np.random.default_rng(seed).normal(size=(m, d)) * scale + 3).astype(dtype)


SHAPES = [(1, 1), (1, 7), (2, 5), (5, 3), (64, 9000), (3, 200_001)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("m", "d"), SHAPES)
def test_products_norms_and_gram(m, d, dtype):
    x, v, w, o = matrix(m, d, dtype), *matrix(3, d, dtype, 1)
    a, b, c, origin = map(torch.from_numpy, (x, v, w, o))
    kept = a.clone(), origin.clone()
    centred = x.astype(float) - o
    stacked = np.vstack([centred, v, w]).astype(float)
    scale = (centred**2).sum(axis=1).max()
    for got, expected in [
        (rows.products(a, b, c, origin=origin), centred @ stacked[-2:].T),
        (rows.products(a, b), x.astype(float) @ v.astype(float)[:, None]),
        (rows.gram(a, b, c, origin=origin), stacked @ stacked.T),
        (rows.squared_norms(a, origin), (centred**2).sum(axis=1)),
        (rows.squared_norms(a), (x.astype(float) ** 2).sum(axis=1)),
    ]:
        assert got.dtype is torch.float64
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-11 * scale)
    assert rows.dot(b, c) == pytest.approx(float(v.astype(float) @ w), rel=1e-9)
    assert torch.equal(a, kept[0])
    assert torch.equal(origin, kept[1])


@pytest.mark.parametrize(("m", "d"), SHAPES)
def test_median_mean_and_deviation(m, d):
    x = matrix(m, d)
    np.testing.assert_allclose(rows.median(torch.from_numpy(x)), np.median(x, axis=0), rtol=1e-6)
    for keep in (None, [m - 1], sorted({0, m // 2, m - 1})):
        used = x.astype(float) if keep is None else x[keep].astype(float)
        mean, std = rows.mean_and_std(torch.from_numpy(x), keep)
        np.testing.assert_allclose(mean, used.mean(axis=0), rtol=1e-5)
        expected = used.std(axis=0, ddof=1) if len(used) > 1 else np.zeros(d)
        np.testing.assert_allclose(std, expected, rtol=1e-4, atol=1e-6)


def test_squared_distances():
    x = matrix(6, 40).astype(float)
    got = rows.squared_distances(torch.from_numpy(x @ x.T))
    expected = [[((a - b) ** 2).sum() for b in x] for a in x]
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)
    assert (got.diagonal() == 0).all()


def test_the_number_of_cores_does_not_matter(monkeypatch):
    x = torch.from_numpy(matrix(7, 200_001))
    results = []
    for workers in (1, 5):
        monkeypatch.setattr(threads, "usable_cores", lambda workers=workers: workers)
        threads._pool.cache_clear()
        results.append((rows.gram(x, origin=x[0]), rows.median(x), rows.products(x, x[1])))
    threads._pool.cache_clear()
    for one, many in zip(*results, strict=True):
        assert torch.equal(one, many)
