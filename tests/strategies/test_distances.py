"""Squared distances against float64 differences, where float32 products fail."""

import numpy as np
import pytest
import torch

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
