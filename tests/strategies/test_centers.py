"""Geometric median and the clipping rules: optimality, state, extremes."""

import numpy as np
import pytest
import torch

from byzflower.strategies import (
    Bucketing,
    CenteredClipping,
    GeometricMedian,
    NearestNeighborMixing,
    NormClipping,
    Rows,
    SignMajority,
    centered_clipping,
    geometric_median,
    norm_clipping,
    sign_majority,
)


def noise(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def equal(n):
    return torch.full((n,), 1 / n, dtype=torch.float64)


def test_unit_vectors_to_the_geometric_median_cancel():
    x = noise(15, 40)
    pull = x - geometric_median(x, iterations=200).gradient
    assert float((pull / pull.norm(dim=1, keepdim=True)).sum(0).norm()) < 1e-3


def test_weight_pulls_the_geometric_median():
    x = noise(9, 30)
    heavy = torch.tensor([0.6] + [0.05] * 8, dtype=torch.float64)
    torch.testing.assert_close(geometric_median(x, heavy, iterations=300).gradient, x[0], atol=1e-3, rtol=0)
    torch.testing.assert_close(geometric_median(x, iterations=0).gradient, x.mean(0))
    by_strategy = GeometricMedian(iterations=4).apply(x, heavy).gradient
    assert torch.equal(by_strategy, geometric_median(x, heavy, 4).gradient)


def test_far_liars_lose_their_pull_on_the_geometric_median():
    x = torch.cat([torch.full((4, 60), 1e6), noise(16, 60)])
    assert geometric_median(x, iterations=40).gradient.abs().max() < 3


@pytest.mark.parametrize("iterations", [1, 2, 5])
@pytest.mark.parametrize("lie", [1e19, 1e30, 3e38])
def test_clipping_bounds_what_a_liar_can_do(iterations, lie):
    x, v = torch.cat([torch.full((3, 500), lie), torch.zeros(9, 500)]), torch.zeros(500)
    moved = centered_clipping(x, v, tau=2.0, iterations=iterations).gradient
    assert float(moved.double().norm()) == pytest.approx(
        0.5 if iterations == 1 else float(moved.norm()), 1e-5
    )
    assert float(moved.norm()) <= 2.0 * iterations * 3 / 12 * (1 + 1e-5)
    clipped = norm_clipping(x, 2.0).gradient
    assert float(clipped.norm()) == pytest.approx(0.5, rel=1e-5)


def test_no_reference_is_zero():
    x = noise(6, 30)
    without = centered_clipping(x, None, 1.0, 3).gradient
    torch.testing.assert_close(without, centered_clipping(x, torch.zeros(30), 1.0, 3).gradient)


def test_centered_clipping_goes_on_from_its_last_aggregate_also_after_a_restart():
    rounds = [noise(8, 20, seed) for seed in range(4)]
    strategy = CenteredClipping(tau=0.5)
    v = torch.zeros(20)
    for x in rounds[:2]:
        v = centered_clipping(x, v, 0.5).gradient
        torch.testing.assert_close(strategy.apply(x, equal(8)).gradient, v)
    resumed = CenteredClipping(tau=0.5)
    resumed.load_state_dict({k: np.array(a) for k, a in strategy.state_dict().items()})
    for x in rounds[2:]:
        assert torch.equal(strategy.apply(x, equal(8)).gradient, resumed.apply(x, equal(8)).gradient)
    fresh = CenteredClipping()
    fresh.load_state_dict(CenteredClipping().state_dict())
    assert fresh.previous is None


def test_a_caller_who_steps_in_place_does_not_change_the_memory():
    strategy = CenteredClipping(tau=0.5)
    result = strategy.apply(noise(5, 4), equal(5))
    kept = result.gradient.clone()
    result.gradient.mul_(0)
    assert torch.equal(strategy.previous, kept)


@pytest.mark.parametrize("pre", [[Bucketing(2)], [NearestNeighborMixing(2)]])
def test_iterating_on_mixtures(pre):
    x = noise(11, 2000)
    rows = Rows.of(x)
    for step in pre:
        rows = step.apply(rows)
    plain = Rows.of(rows.matrix().clone())
    for rule in (lambda r: geometric_median(r), lambda r: centered_clipping(r, None, 20.0, 4)):
        torch.testing.assert_close(rule(rows).gradient, rule(plain).gradient, rtol=1e-4, atol=1e-5)


def test_sign_ties_are_zero():
    x = torch.tensor([[1.0, -2, 0, 5], [-1, -3, 0, 0], [0, 4, 0, 0]])
    assert sign_majority(x, 2.0).gradient.tolist() == [0, -2, 0, 2]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: NormClipping(0), "max_norm must be positive, got 0"),
        (lambda: CenteredClipping(tau=-1), "tau must be positive, got -1"),
        (lambda: CenteredClipping(iterations=0), "iterations must be at least 1, got 0"),
        (lambda: GeometricMedian(nu=0), "nu must be positive, got 0"),
        (lambda: GeometricMedian(iterations=-1), "iterations must not be negative, got -1"),
        (lambda: SignMajority(0), "step must be positive, got 0"),
    ],
)
def test_mistakes_are_named_at_once(make, text):
    with pytest.raises(ValueError, match=text):
        make()
