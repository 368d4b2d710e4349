"""Min-Max, Min-Sum and STRIKE: their constraint holds and is tight, as brute force finds it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from views import view

from byzflower.attacks import (
    STRIKE,
    MinMax,
    MinSum,
    gradient_skew,
    majority_size,
    min_max,
    min_sum,
    skewed_majority,
    strike,
)
from byzflower.attacks.hiding import largest_step


def cases(m=(2, 40), d=(1, 60)):
    return st.builds(
        make,
        st.integers(*m),
        st.integers(*d),
        st.integers(0, 2**32),
        st.sampled_from(["normal", "heavy", "offset", "scaled", "outlier", "skewed"]),
    )


def make(m, d, seed, kind):
    random = np.random.default_rng(seed)
    x = random.normal(size=(m, d))
    if kind == "heavy":
        x = random.standard_t(2, size=(m, d))
    elif kind == "offset":
        x = 1 + 1e-2 * x
    elif kind == "scaled":
        x *= 10.0 ** random.integers(-6, 6, size=d)
    elif kind == "outlier":
        x[0] *= 1e4
    elif kind == "skewed":
        x = random.exponential(size=(m, d))
    return x


def distances(point, x):
    return np.sqrt(((np.asarray(x) - point) ** 2).sum(axis=1))


def diameter(x):
    return max(distances(row, x).max() for row in x)


def row_sums(x):
    return [(distances(row, x) ** 2).sum() for row in x]


def bisect(allowed):
    """The largest allowed strength, told only whether one is allowed."""
    low, high = 0.0, 1.0
    while allowed(high):
        low, high = high, high * 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if allowed(middle) else (low, middle)
    return low


def slow_min_max(x):
    mu, sigma = x.mean(axis=0), x.std(axis=0, ddof=1)
    limit = diameter(x)
    gamma = bisect(lambda g: distances(mu - g * sigma, x).max() <= limit * (1 + 1e-12))
    return mu - gamma * sigma


def slow_min_sum(x, bound):
    mu, sigma = x.mean(axis=0), x.std(axis=0, ddof=1)
    limit = max(row_sums(x)) if bound == "max" else min(row_sums(x))
    gamma = bisect(lambda g: (distances(mu - g * sigma, x) ** 2).sum() <= limit * (1 + 1e-12))
    return mu - gamma * sigma


def slow_majority(x, size):
    mu = x.mean(axis=0)
    u = np.median(x, axis=0) - mu
    p = x @ (u / np.linalg.norm(u)) if np.any(u) else np.zeros(len(x))
    return sorted(np.argsort(-p, kind="stable")[:size].tolist())


def slow_strike(x, keep, nu):
    kept = x[keep]
    centre = kept.mean(axis=0)
    sigma = kept.std(axis=0, ddof=1) if len(kept) > 1 else np.zeros(x.shape[1])
    direction = np.sign(centre - x.mean(axis=0)) * sigma
    if not direction.any():
        return centre
    limit = diameter(kept)
    alpha = bisect(lambda a: distances(centre + a * direction, kept).max() <= limit * (1 + 1e-12))
    return centre + nu * alpha * direction


def close(got, expected, x, rtol=1e-5):
    """Equal relative to the spread of the rows, which is what the step is measured by."""
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol * max(diameter(x), 1e-30))


@settings(max_examples=60, deadline=None)
@given(cases())
def test_min_max_goes_as_far_as_brute_force(x):
    close(min_max(torch.from_numpy(x)), slow_min_max(x), x)


@settings(max_examples=60, deadline=None)
@given(cases(), st.sampled_from(["max", "min"]))
def test_min_sum_goes_as_far_as_brute_force(x, bound):
    close(min_sum(torch.from_numpy(x), bound), slow_min_sum(x, bound), x)


@settings(max_examples=60, deadline=None)
@given(cases(m=(3, 40), d=(2, 60)), st.sampled_from([0.25, 1.0, 2.0]), st.data())
def test_strike_goes_as_far_as_brute_force(x, nu, data):
    size = data.draw(st.integers(1, len(x)))
    keep = skewed_majority(torch.from_numpy(x), size)
    close(strike(torch.from_numpy(x), size, nu), slow_strike(x, keep, nu), x)


@settings(max_examples=60, deadline=None)
@given(cases(m=(3, 40), d=(2, 60)), st.data())
def test_the_skewed_majority_is_farthest_along_median_minus_mean(x, data):
    size = data.draw(st.integers(1, len(x)))
    got, expected = skewed_majority(torch.from_numpy(x), size), slow_majority(x, size)
    if got != expected:  # only if they project to the same place, up to rounding
        u = np.median(x, axis=0) - x.mean(axis=0)
        p = (x - x.mean(axis=0)) @ u
        np.testing.assert_allclose(
            np.sort(p[got]), np.sort(p[expected]), rtol=1e-7, atol=1e-9 * np.abs(p).max()
        )


@pytest.mark.parametrize("kind", ["normal", "offset", "outlier", "skewed"])
def test_float32_is_as_good_as_float64(kind):
    x = make(20, 5000, 1, kind)
    single, double = torch.from_numpy(x.astype(np.float32)), torch.from_numpy(x.astype(np.float32)).double()
    for attack in (min_max, min_sum, lambda rows: strike(rows, 12, 1.0)):
        step = attack(double) - double.mean(dim=0)
        error = (attack(single).double() - attack(double)).norm() / step.norm()
        assert error < 1e-4


@settings(max_examples=40, deadline=None)
@given(cases(m=(3, 20), d=(2, 30)), st.integers(0, 2**32), st.floats(0.1, 100))
def test_order_place_and_scale_do_not_matter(x, seed, scale):
    random = np.random.default_rng(seed)
    order, shift = random.permutation(len(x)), random.normal(size=x.shape[1])
    rows = torch.from_numpy(x)
    for attack in (min_max, min_sum):
        base = attack(rows).numpy()
        close(attack(rows[torch.from_numpy(order)]), base, x, 1e-6)
        close(attack(rows * scale), base * scale, x * scale, 1e-6)
        close(attack(rows + torch.from_numpy(shift)), base + shift, x, 1e-5)


def test_equal_and_lone_benign_rows_are_copied():
    row = torch.randn(9, generator=torch.Generator().manual_seed(1))
    for m in (1, 2, 8):
        rows = row.repeat(m, 1)
        for got in (min_max(rows), min_sum(rows), strike(rows, m, 2.0), strike(rows, 1, 1.0)):
            torch.testing.assert_close(got, row)
        assert skewed_majority(rows, (m + 1) // 2) == list(range((m + 1) // 2))
        assert gradient_skew(rows, m) == 0


def test_two_mirrored_rows_have_no_skew_and_go_to_the_lower_index():
    rows = torch.tensor([[1.0, 2.0], [-1.0, -2.0]])
    assert skewed_majority(rows, 1) == [0]
    torch.testing.assert_close(strike(rows, 1, 1.0), rows[0])


@settings(max_examples=40, deadline=None)
@given(cases(m=(3, 30), d=(2, 40)), st.data())
def test_gradient_skew_by_definition(x, data):
    size = data.draw(st.integers(1, len(x)))
    kept = x[skewed_majority(torch.from_numpy(x), size)]
    extent = diameter(kept) ** 2
    shift = ((kept.mean(axis=0) - x.mean(axis=0)) ** 2).sum()
    expected = shift / extent if size > 1 else 0
    assert gradient_skew(torch.from_numpy(x), size) == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_the_size_of_the_majority():
    assert majority_size(16, 20, 4) == 12  # n - f rows: n - 2f
    assert majority_size(4, 20, 4) == 3  # the same share of the attackers' own rows
    assert majority_size(1, 3, 1) == 1
    assert majority_size(2, 3, 1) == 1
    with pytest.raises(ValueError, match="STRIKE needs n - 2f >= 1, got n=4, f=2"):
        majority_size(2, 4, 2)


def test_the_classes_apply_the_functions():
    rows = torch.randn(8, 5, generator=torch.Generator().manual_seed(3))
    for attack, expected in [
        (MinMax(), min_max(rows)),
        (MinSum(), min_sum(rows)),
        (MinSum(bound="min"), min_sum(rows, "min")),
        (STRIKE(nu=0.5), strike(rows, 6, 0.5)),
    ]:
        crafted = attack.craft(view(rows, 2, 10))
        assert crafted.shape == (2, 5)
        assert torch.equal(crafted[1], expected)
    with pytest.raises(ValueError, match="bound must be max or min, got 'mean'"):
        MinSum(bound="mean")


@given(
    st.floats(1e-6, 1e6),
    st.lists(
        st.tuples(
            st.integers(-(10**6), 10**6).map(lambda i: i / 1e3), st.integers(0, 10**9).map(lambda i: i / 1e3)
        ),
        min_size=1,
        max_size=5,
    ),
)
def test_the_largest_step_is_the_root(norm, constraints):
    along, slack = (torch.tensor(c, dtype=torch.float64) for c in zip(*constraints, strict=True))
    step = largest_step(norm, along, slack)
    left = step * step * norm - 2 * step * along - slack
    size = step * step * norm + 2 * step * along.abs() + slack
    assert (left <= 1e-9 * size + 1e-300).all()
    assert (left.abs() <= 1e-9 * size + 1e-300).any()
    assert largest_step(0.0, along, slack) == 0
