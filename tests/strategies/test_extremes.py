"""Rows as extreme as stacking lets through: no rule fails, robust ones stay with the benign."""

import inspect
import math

import numpy as np
import pytest
import torch

from byzflower.strategies import (
    PRE_AGGREGATIONS,
    STRATEGIES,
    MomentsStrategy,
    PackedRows,
    TooFewClients,
    caf,
    geometric_median,
    krum,
    mda,
    smea,
)
from byzflower.strategies.leeway import LEEWAY, hold_back, longest_step
from byzflower.strategies.result import AggregationResult
from byzflower.uploads.limits import MAX_NORM

D, N, F = 32, 19, 4
LONGEST = 0.999 * MAX_NORM
RULES = [name for name, rule in STRATEGIES.items() if not issubclass(rule, MomentsStrategy)]
OPTIONS = {"fltrust": {"root_upload": None}, "normclipping": {"max_norm": 3.0}, "signmajority": {"step": 0.1}}
PRE = {"adaptiveclip": (F,), "bucketing": (2,), "clip": (3.0,), "nnm": (F,), "sparsify": (0.5,)}
# Means of everybody or of whom signs or clusters spare, and DnC, whose one direction may be another's.
NOT_BOUNDED = {"fedavg", "fedsign", "robustdpfl", "flguardian", "dnc"}
# Of the longest benign row; the mean of the nearest to a median takes some liars that look ordinary.
FACTOR = 1.5


def extremes():
    """Rows of F attackers, up to the longest that get past stacking."""
    directions = np.random.default_rng(1).normal(size=(F, D))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    same = np.full((F, D), 1 / math.sqrt(D))
    return {
        "one direction": same * LONGEST,
        "opposite": same * np.resize([1, -1], F)[:, None] * LONGEST,
        "one coordinate": np.eye(1, D, 3).repeat(F, 0) * LONGEST,
        "orthogonal": np.eye(F, D) * LONGEST,
        "any direction": directions * LONGEST,
        "any length": directions * 10.0 ** np.array([[3], [8], [13], [19]]),
        "far": same * 1e4,
        "subnormal": same * 1e-39,
    }


def make(name, pre):
    steps = [PRE_AGGREGATIONS[pre](*PRE[pre])] if pre else []
    bounded = "num_byzantine" in inspect.signature(STRATEGIES[name]).parameters
    f = {"num_byzantine": F} if bounded else {}
    strategy = STRATEGIES[name](**OPTIONS.get(name, {}), **f, pre=steps)
    if name == "fltrust":
        strategy._root_gradient = torch.full((D,), 0.5)
    return strategy


@pytest.mark.parametrize("pre", [None, *PRE])
@pytest.mark.parametrize("name", RULES)
def test_no_row_that_stacking_lets_through_spoils_a_rule(name, pre):
    benign = 0.5 + np.random.default_rng(0).normal(size=(N - F, D))
    equal = torch.full((N,), 1 / N, dtype=torch.float64)
    for case, rows in extremes().items():
        for dtype in (torch.float32, torch.float64):
            try:
                result = make(name, pre).apply(
                    torch.tensor(np.concatenate([rows, benign]), dtype=dtype), equal
                )
            except TooFewClients:
                continue
            assert result.gradient.isfinite().all(), (case, dtype)
            far = float(result.gradient.double().norm()) / np.linalg.norm(benign, axis=1).max()
            assert name in NOT_BOUNDED or far <= FACTOR, (case, dtype)


@pytest.mark.parametrize("n", [20, 41])
@pytest.mark.parametrize("length", [1e4, 1e10, LONGEST])
def test_the_geometric_median_is_bounded_up_to_half_the_rows(n, length):
    f = (n - 1) // 2 - 1
    rows = np.random.default_rng(2).normal(size=(n, 50))
    rows[:f] = length / math.sqrt(50)
    result = geometric_median(torch.tensor(rows))
    benign = np.linalg.norm(rows[f:], axis=1).max()
    # With p of the weight at a distance, the median is within 1 / (1 - 2p) of the others' spread, doubled.
    assert result.gradient.norm() < 2 * benign / (1 - 2 * f / n)
    assert float(result.weights.sum()) == pytest.approx(1)
    pull = torch.tensor(rows) - result.gradient
    units = pull / pull.norm(dim=1, keepdim=True)
    assert units.mean(dim=0).norm() < 1e-4


def test_a_given_number_of_steps_is_the_papers():
    rows = torch.tensor(np.random.default_rng(3).normal(size=(9, 6)))
    center = rows.mean(dim=0)
    for _ in range(3):
        pull = 1 / (rows - center).norm(dim=1)
        center = pull @ rows / pull.sum()
    torch.testing.assert_close(geometric_median(rows, iterations=3).gradient, center)


def test_attackers_apart_from_each_other_cannot_stop_cafs_filter_early():
    for seed in range(20):
        random = np.random.default_rng(seed)
        rows = random.normal(size=(10, 64))
        rows[:4] *= 1e9
        assert caf(torch.tensor(rows), 4).gradient.norm() < 20


@pytest.mark.parametrize("n", [30, 210])
def test_rows_in_all_directions_alike_have_a_top_eigenvector_too(n):
    for scale in (0.0, 1.0, 1e15):
        rows = scale * np.eye(n, n)
        assert caf(torch.tensor(rows), n // 5).gradient.isfinite().all()


def test_subnormal_rows_count_as_zero_beside_others():
    rows = torch.randn(9, 1000, generator=torch.Generator().manual_seed(1))
    zero, tiny = rows.clone(), rows.clone()
    zero[:2], tiny[:2] = 0, 1e-40
    assert torch.equal(krum(tiny, 2).selected, krum(zero, 2).selected)
    assert float(torch.full((1,), 1e-40) * 1) > 0  # this thread's arithmetic is as it was


@pytest.mark.parametrize(("n", "f"), [(198, 2), (300, 100)])
def test_smea_does_not_try_all_subsets_whatever_n_and_f(n, f):
    rows = torch.randn(n, 40, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    rows[:f] += 100
    result = smea(rows, f)
    assert result.info["exact"] == 0
    assert not result.selected[:f].any()


@pytest.mark.parametrize(("n", "f"), [(20, 5), (50, 3), (100, 2), (200, 1)])
def test_smea_tries_all_subsets_where_it_says_so(n, f):
    size = n - f
    assert math.comb(n, size) * max(1, (size / 64) ** 3) <= 20_000


def test_neighbourhoods_are_tried_a_few_at_a_time():
    rows = torch.randn(200, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    rows[:60] += 1e6
    assert not mda(rows, 60).selected[:60].any()


def packed(rows, masks):
    return PackedRows.of_matrix(torch.tensor(rows, dtype=torch.float32), torch.tensor(masks), 2)


def test_a_step_that_only_one_client_explains_is_not_taken():
    rows = np.full((5, 6), 0.5)
    rows[4, 4:] = [1e18, 0.25]
    masks = np.array([[True, True, False]] * 4 + [[False, False, True]])
    aggregate = AggregationResult(torch.tensor([0.5, 0.5, 0.5, 0.5, 1e18, 0.25]))
    held = hold_back(packed(rows, masks), aggregate)
    np.testing.assert_array_equal(held.gradient, [0.5, 0.5, 0.5, 0.5, 0, 0.25])
    assert held.reasons == {4: f"would move coordinate 4 by 1e+18, at most {LEEWAY * 0.5:.3g} allowed"}
    fine = AggregationResult(torch.tensor([0.5, 0.5, 0.5, 0.5, LEEWAY * 0.5, 0.25]))
    assert hold_back(packed(rows, masks), fine) is fine


def test_no_minority_sets_the_limit():
    benign = np.array([1.0, 2.0, 3.0, 4.0])
    assert longest_step(benign) == LEEWAY * 2
    assert longest_step(np.array([0, 0, 0, 5.0])) == LEEWAY * 5
    assert longest_step(np.zeros(3)) == 0
    for lies in ([0, 0, 0], [1e-9] * 3, [1e18] * 3):
        assert LEEWAY <= longest_step(np.concatenate([benign, lies])) <= LEEWAY * 4
