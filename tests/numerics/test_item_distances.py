"""Distances by products are what differences give, wherever rows lie."""

import numpy as np
import pytest
import torch

from byzflower.numerics.item_distances import ItemDistances
from byzflower.strategies.items.krum import _sums_of_least, item_scores


def _rows(kind, c=60):
    random = np.random.default_rng(3)
    rows = random.normal(size=(4, c, 8))
    match kind:
        case "far away":
            rows[:, :, 0] += 1e6
        case "a tight cluster":
            rows[:, : c // 2] = 1 + 1e-6 * rows[:, : c // 2]
        case "one pair":
            rows[:, 1] = rows[:, 0] * (1 + 1e-6)
        case "huge outlier":
            rows[:, -1] *= 1e19
        case "huge":
            rows *= 1e37
        case "tiny":
            rows *= 1e-37
        case "equal":
            rows[:, 20:40] = rows[:, 20:21]
        case "equal and opposite":
            rows[:, 20:40:3] = rows[:, 20:21]
            rows[:, 20] *= -1
        case "signed zeros":
            rows[:, :9] = 0.0
            rows[:, 3:5] = -0.0
        case "all equal":
            rows[:] = 0.3
    return torch.from_numpy(rows.astype(np.float32))


KINDS = [
    "normal",
    "far away",
    "a tight cluster",
    "one pair",
    "huge outlier",
    "huge",
    "tiny",
    "equal",
    "equal and opposite",
    "signed zeros",
    "all equal",
]


def _reference(rows):
    away = rows.double()[:, :, None] - rows.double()[:, None]
    squares = away.square().sum(dim=3)
    squares.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    return squares


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", [slice(0, 60), slice(17, 31), slice(50, 99)])
def test_distances(kind, part):
    rows = _rows(kind)
    before = rows.clone()
    distances = ItemDistances(rows)
    squares = distances.of(part)
    leaders = distances.leaders[:, part, None].expand(-1, -1, rows.shape[1])
    expected = _reference(rows).gather(1, leaders)
    torch.testing.assert_close(squares.sqrt(), expected.sqrt(), rtol=3e-7, atol=0)
    assert torch.equal(squares == 0, expected == 0), "equal rows, and only they, are at distance 0"
    assert torch.equal(rows, before)


def test_equal_rows_are_worked_on_once():
    rows = _rows("equal")
    distances = ItemDistances(rows)
    assert distances.leaders.tolist() == [[*range(21), *range(40, 60)]] * 4
    known = distances.of_all(distances.leaders)
    assert (known[:, 20:40] == 20).all()
    assert ItemDistances(_rows("all equal")).leaders.tolist() == [[0]] * 4
    one_item = torch.cat([_rows("equal")[:1], _rows("normal")[:1]])
    assert ItemDistances(one_item).leaders.shape == (2, 60)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("squared", [True, False])
def test_scores_are_sums_over_the_nearest(kind, squared):
    rows = _rows(kind, c=300)
    nearest = _reference(rows).sort(dim=2).values[:, :, :200]
    expected = (nearest if squared else nearest.sqrt()).sum(dim=2)
    torch.testing.assert_close(item_scores(rows, 200, squared), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("width", [1, 2, 256, 257, 900])
@pytest.mark.parametrize("equal", [0, 0.6])
def test_sums_of_the_least_values(width, equal):
    values = np.random.default_rng(width).normal(size=(15, width))
    values[:, width - int(equal * width) :] = 0.5
    values[:, 0] = np.inf
    values[3, : width // 2] = np.inf
    for count in {1, width // 2 or 1, width - 1 or 1, width}:
        expected = np.sort(values, axis=1)[:, :count].sum(axis=1)
        np.testing.assert_allclose(_sums_of_least(values.copy(), count), expected, rtol=1e-12)
