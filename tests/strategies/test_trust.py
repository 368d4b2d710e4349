"""FLTrust, SignGuard, FedSign, Robust-DPFL, LASA, FLGuardian: definitions, layers, state, hostile rows."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from byzflower.strategies import (
    LASA,
    Bucketing,
    FLGuardian,
    FLTrust,
    NearestNeighborMixing,
    SignGuard,
    fedsign,
    flguardian,
    fltrust,
    lasa,
    robust_dpfl,
    sign_guard,
)
from byzflower.uploads.dense import DenseUpload
from flower import begin_round

LAYERS = (slice(0, 10), slice(10, 40), slice(40, 60))


def noise(n, d, seed=0, shift=0.0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + shift


def equal(n):
    return torch.full((n,), 1 / n, dtype=torch.float64)


# -- FLTrust -----------------------------------------------------------------------------------------


def test_fltrust_ignores_who_points_away_and_stays_if_all_do():
    root = torch.ones(60)
    result = fltrust(torch.cat([-10 * torch.ones(3, 60), 5 * torch.ones(1, 60)]), root)
    assert result.weights.tolist() == pytest.approx([0, 0, 0, 0.2])
    torch.testing.assert_close(result.gradient, root)
    assert torch.equal(fltrust(-torch.ones(3, 60), root).gradient, torch.zeros(60))
    with pytest.raises(ValueError, match=r"root_gradient must have shape \(60,\)"):
        fltrust(torch.ones(3, 60), torch.ones(61))


def upload(row, client):
    return DenseUpload([client], np.array([1.0]), [{}], row[None].astype(np.float32))


def test_fltrusts_root_upload_is_what_an_honest_client_would_send():
    model = {"a": np.full((2, 3), 2, np.float32), "b": np.full(4, 3, np.float32)}
    rows = [np.concatenate([model["a"].ravel(), model["b"]]) * scale for scale in (0.5, 3.0)]
    calls = []

    def root_upload(server_round, arrays):
        calls.append((server_round, [array.shape for array in arrays]))
        return [0.9 * array for array in arrays]

    strategy = FLTrust(root_upload)
    for server_round in (1, 2):
        begin_round(strategy, model, [1, 2], server_round)
        new = strategy.aggregate_uploads([upload(row, i) for i, row in enumerate(rows)])
        np.testing.assert_allclose(new[:6], 2 - 0.2, rtol=1e-5)  # the first agrees: w - w / 2
        assert strategy.last_round.weights[1] == 0  # the second points away: w - 3 w
        strategy.apply(torch.ones(2, 10), equal(2))  # as an adversary does who tries something
    assert calls == [(1, [(2, 3), (4,)]), (2, [(2, 3), (4,)])]


def test_fltrusts_root_upload_may_be_a_gradient():
    model = {"a": np.full(4, 7, np.float32)}
    strategy = FLTrust(lambda server_round, arrays: [np.ones(4, np.float32)], upload="gradient")
    begin_round(strategy, model, [1, 2])
    np.testing.assert_allclose(strategy.aggregate_uploads([upload(np.full(4, 5.0), 0)]), 6)


@pytest.mark.parametrize(
    ("root", "text"),
    [
        (lambda r, arrays: arrays[:1], r"root_upload must return arrays of shapes \(\(2,\), \(3,\)\)"),
        (lambda r, arrays: [arrays[0], arrays[1][:2]], r"got \(\(2,\), \(2,\)\)"),
    ],
)
def test_a_root_upload_of_other_shapes_is_an_error(root, text):
    strategy = FLTrust(root)
    begin_round(strategy, {"a": np.zeros(2, np.float32), "b": np.zeros(3, np.float32)}, [1, 2])
    with pytest.raises(ValueError, match=text):
        strategy.aggregate_uploads([upload(np.ones(5), 0)])


def test_a_round_whose_root_upload_is_not_finite_is_skipped():
    strategy = FLTrust(lambda r, arrays: [np.full_like(array, np.nan) for array in arrays])
    begin_round(strategy, {"a": np.zeros(2, np.float32)}, [1, 2])
    assert strategy.aggregate_uploads([upload(np.ones(2), 0)]) is None
    assert strategy.last_round.skipped == "the root upload is not finite"


# -- SignGuard ---------------------------------------------------------------------------------------


def test_sign_guard_drops_by_norm_and_by_signs_and_clips():
    honest = noise(14, 4000, 7, shift=1.0)
    flipped, long, short = -honest[:3], 10 * honest[3:5], 0.01 * honest[5:7]
    result = sign_guard(torch.cat([flipped, long, short, honest]), seed=1)
    assert result.selected.tolist() == [False] * 7 + [True] * 14
    middle = torch.cat([flipped, long, short, honest]).norm(dim=1).median()
    clipped = honest * (middle / honest.norm(dim=1, keepdim=True)).clamp(max=1)
    torch.testing.assert_close(result.gradient, clipped.mean(0), rtol=1e-4, atol=1e-5)


def test_sign_guard_remembers_for_its_cosine_only():
    x = [noise(8, 50, seed, shift=0.5) for seed in range(3)]
    strategy = SignGuard(cosine=True, fraction=1.0)
    first = strategy.apply(x[0], equal(8)).gradient
    expected = sign_guard(x[1], fraction=1.0, reference=first).gradient
    torch.testing.assert_close(strategy.apply(x[1], equal(8)).gradient, expected)
    resumed = SignGuard(cosine=True, fraction=1.0)
    resumed.load_state_dict(strategy.state_dict())
    assert torch.equal(strategy.apply(x[2], equal(8)).gradient, resumed.apply(x[2], equal(8)).gradient)


def test_sign_guards_parameters():
    with pytest.raises(ValueError, match=r"lower and upper must be .* got \(2, 1\)"):
        SignGuard(lower=2, upper=1)
    with pytest.raises(ValueError, match=r"fraction must be in \(0, 1\], got 0"):
        SignGuard(fraction=0)
    assert sign_guard(noise(1, 5)).selected.tolist() == [True]


# -- FedSign, Robust-DPFL ----------------------------------------------------------------------------


def test_fedsign_drops_who_is_too_much_alike():
    honest = noise(9, 600, 8, shift=0.4)
    result = fedsign(torch.cat([-honest.mean(0).expand(4, -1), honest]))
    assert result.selected.tolist() == [False] * 4 + [True] * 9
    assert -1 <= result.info["least_density"] < result.info["greatest_density"] <= 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-20, 20), min_size=2, max_size=10))
def test_robust_dpfl_splits_best(means):
    x = torch.tensor(means, dtype=torch.float32)[:, None].expand(-1, 4).clone()
    scores = -np.array(means, float)
    result = robust_dpfl(x)

    def within(kept):
        return sum(((part - part.mean()) ** 2).sum() for part in (scores[kept], scores[~kept]) if len(part))

    kept = result.selected.numpy()
    if len(set(means)) == 1:
        assert kept.all()
        return
    assert scores[kept].min() > scores[~kept].max()
    splits = (np.array(s) for s in itertools.product([True, False], repeat=len(means)))
    best = min(within(split) for split in splits if split.any() and not split.all())
    assert within(kept) <= best + 1e-6


def test_robust_dpfl_keeps_the_models_of_higher_mean():
    """Rows are global minus local: the higher model has the lower row."""
    result = robust_dpfl(torch.cat([noise(5, 200, 9, shift=2.0), noise(7, 200, 10)]))
    assert result.selected.tolist() == [False] * 5 + [True] * 7


@pytest.mark.parametrize("rule", [fedsign, robust_dpfl])
def test_claimed_sizes_weigh_only_what_is_kept(rule):
    x = torch.cat([noise(8, 60, 11, shift=-0.2), torch.full((4, 60), 3.0)])
    sizes = torch.arange(1, 13, dtype=torch.float64) / 78
    result = rule(x, sizes)
    kept = result.selected
    assert not kept[8:].any()
    torch.testing.assert_close(result.weights[kept], sizes[kept] / sizes[kept].sum())


# -- LASA, FLGuardian --------------------------------------------------------------------------------


def test_lasa_filters_layer_by_layer():
    x = noise(12, 60, 13)
    x[0, LAYERS[1]] *= 50  # hostile in one layer only
    result = lasa(x, LAYERS, sparsity=0.0, lambda_n=3.0, lambda_d=5.0)
    assert result.gradient.abs().max() < 3
    assert result.weights[0] < result.weights[1:].max()
    with pytest.raises(ValueError, match="layers must cover 60 columns one after the other"):
        lasa(x, LAYERS[:2])
    for options, text in [
        ({"sparsity": 1.0}, "sparsity"),
        ({"lambda_n": 0}, "lambda_n"),
        ({"lambda_d": 0}, "lambda_d"),
    ]:
        with pytest.raises(ValueError, match=f"{text} must be"):
            LASA(**options)


def test_flguardian_trusts_who_is_benign_in_most_layers():
    x = noise(12, 60, 14, shift=1.0) * 0.3
    x[:4, LAYERS[0]] += 20
    x[:4, LAYERS[1]] -= 20
    result = flguardian(x, LAYERS)
    assert not result.selected[:4].any()
    assert int(result.selected.sum()) >= 7
    assert result.info["greatest_trust"] == 1


@pytest.mark.parametrize("make", [LASA, FLGuardian])
def test_strategies_take_the_models_layers(make):
    model = {"a": np.zeros((2, 5), np.float32), "n": np.zeros((), np.int64), "b": np.zeros(50, np.float32)}
    strategy = make()
    assert strategy.layers == ()
    begin_round(strategy, model, [1, 2])
    assert strategy.layers == (slice(0, 10), slice(10, 60))
    x = noise(9, 60, 15)
    rule = lasa if make is LASA else flguardian
    assert torch.equal(strategy.apply(x, equal(9)).gradient, rule(x, strategy.layers).gradient)


@pytest.mark.parametrize("pre", [[Bucketing(2)], [NearestNeighborMixing(2)]])
@pytest.mark.parametrize("make", [LASA, FLGuardian])
def test_layers_of_mixtures(make, pre):
    x = noise(11, 600, 16)
    strategy = make(pre=pre)
    rows = strategy.pre_aggregate(x)
    layers = (slice(0, 100), slice(100, 600))
    rule = lasa if make is LASA else flguardian
    written_out = rule(rows.matrix().clone(), layers).gradient
    torch.testing.assert_close(rule(rows, layers).gradient, written_out, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("n", "d"), [(3, 5), (5, 5), (7, 999), (10, 5000), (33, 70_001)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_robust_dpfl_does_not_split_equal_rows(n, d, dtype):
    row = torch.randn(1, d, generator=torch.Generator().manual_seed(1), dtype=dtype)
    assert robust_dpfl(row.expand(n, d).contiguous()).selected.all()


@pytest.mark.parametrize("scale", [1e-30, 1e-23, 1.0, 1e18])
def test_fltrust_is_the_same_at_any_scale(scale):
    g = torch.randn(3, 5000, generator=torch.Generator().manual_seed(1))
    g[1:] = g[0] + 0.5 * g[1:]
    expected = fltrust(g, g[0]).weights
    torch.testing.assert_close(fltrust(g * scale, g[0] * scale).weights, expected, rtol=1e-4, atol=1e-6)
