"""Squared distances against float64 differences, where float32 products fail."""

import numpy as np
import pytest
import torch

from byzflower.numerics.distances import squared_distances as distances_by_block
from byzflower.strategies import Rows


def squared_distances(x: torch.Tensor) -> torch.Tensor:
    return Rows.of(x).squared_distances


def direct(x: torch.Tensor) -> torch.Tensor:
    wide = x.double()
    return torch.stack([((wide - row) ** 2).sum(1) for row in wide])


CASES = {
    "normal": lambda r: r.normal(size=(12, 3000)),
    "far from zero": lambda r: 1e3 + 1e-2 * r.normal(size=(12, 3000)),
    "tiny differences": lambda r: r.normal(size=3000) + 1e-6 * r.normal(size=(12, 3000)),
    "two tight clusters": lambda r: (
        np.repeat(r.normal(size=(2, 3000)), 6, 0) + 1e-5 * r.normal(size=(12, 3000))
    ),
    "one row of 1e19 first": lambda r: np.concatenate([np.full((1, 3000), 1e19), r.normal(size=(11, 3000))]),
    "rows of 1e30": lambda r: np.concatenate([r.normal(size=(8, 3000)), 1e30 * r.normal(size=(4, 3000))]),
    "clusters in a cluster": lambda r: (
        r.normal(size=(1, 3000))
        + np.repeat(1e-2 * r.normal(size=(3, 3000)), 4, 0)
        + 1e-5 * r.normal(size=(12, 3000))
    ),
    "equal": lambda r: np.ones((12, 3000)) * r.normal(size=3000),
}


@pytest.mark.parametrize("case", CASES)
def test_against_direct_differences(case):
    x = torch.from_numpy(CASES[case](np.random.default_rng(0)).astype(np.float32))
    expected = direct(x)
    np.testing.assert_allclose(squared_distances(x), expected, rtol=1e-5, atol=0)


def test_never_negative_and_symmetric():
    x = 5 + 1e-7 * torch.randn(30, 10_000, generator=torch.Generator().manual_seed(0))
    distances = squared_distances(x)
    assert (distances >= 0).all()
    assert torch.equal(distances, distances.T)
    assert (distances.diagonal() == 0).all()


def test_order_of_distances_that_differ_by_a_millionth():
    random = np.random.default_rng(1)
    origin, direction = random.normal(size=(2, 1_000_000))
    near, far = origin + direction, origin + direction * (1 + 1e-5)
    other = origin + random.normal(size=(3, 1_000_000))
    x = torch.from_numpy(np.stack([*other, origin, near, far]).astype(np.float32))
    distances = squared_distances(x)
    assert distances[3, 4] < distances[3, 5]
    exact = direct(x)
    torch.testing.assert_close(distances, exact, rtol=1e-6, atol=0)


def outward(r, n):
    """Each row so much farther out than the one before that these are as good as one to it."""
    return r.normal(size=3000) * 30.0 ** np.arange(n)[:, None] * 1e-10


def outward_in_one_column(r, n):
    """The same in one column each, which no sample of the columns shows; all else as honest rows have it."""
    x = r.normal(size=(n, 3000))
    x[np.arange(n), 7 * np.arange(n) + 5] = 30.0 ** np.arange(n)
    return x


def pairs_outward(r, n):
    """Twins that differ by little, each pair so much farther out than the one before."""
    return np.repeat(outward(r, n // 2), 2, axis=0) * (1 + 1e-6 * r.normal(size=(n, 3000)))


ARRANGEMENTS = {
    "outward": lambda r: np.concatenate([outward(r, 20)[::-1], 1e-12 * r.normal(size=(24, 3000))]),
    "outward in one column": lambda r: np.concatenate(
        [outward_in_one_column(r, 20), r.normal(size=(24, 3000))]
    ),
    "twins outward": lambda r: np.concatenate([pairs_outward(r, 30), 1e-12 * r.normal(size=(4, 3000))]),
    "on a line": lambda r: r.normal(size=3000) * np.arange(50)[:, None],
    "clusters": lambda r: np.repeat(r.normal(size=(9, 3000)), 5, 0) + 1e-6 * r.normal(size=(45, 3000)),
    "equal": lambda r: np.repeat(r.normal(size=(1, 3000)), 40, 0),
}


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_no_arrangement_takes_more_than_two_passes(arrangement):
    x = torch.from_numpy(ARRANGEMENTS[arrangement](np.random.default_rng(3)).astype(np.float32))
    n, d = x.shape
    read = []

    def block(columns):
        read.append(len(range(d)[columns]))
        return x[:, columns]

    distances = distances_by_block(block, n, d, x.device)
    np.testing.assert_allclose(distances, direct(x), rtol=1e-5, atol=0)
    assert sum(read) <= 2 * d + 256


def test_ordinary_rows_take_one_pass():
    x = torch.randn(40, 3000, generator=torch.Generator().manual_seed(4))
    read = []

    def block(columns):
        read.append(len(range(3000)[columns]))
        return x[:, columns]

    distances_by_block(block, 40, 3000, x.device)
    assert sum(read) <= 3000 + 256
