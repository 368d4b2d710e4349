"""FLTrust, SignGuard, FedSign, Robust-DPFL, LASA, FLGuardian: definitions, layers, state, hostile rows."""

import itertools

import numpy as np
import pytest
import torch
from flower import begin_round
from hypothesis import given, settings
from hypothesis import strategies as st

from byzflower.strategies import (
    LASA,
    Bucketing,
    FLGuardian,
    FLTrust,
    NearestNeighborMixing,
    SignGuard,
    TooFewClients,
    fedsign,
    flguardian,
    fltrust,
    lasa,
    robust_dpfl,
    sign_guard,
)
from byzflower.uploads.dense import DenseUpload

LAYERS = (slice(0, 10), slice(10, 40), slice(40, 60))


def noise(n, d, seed=0, shift=0.0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + shift


def equal(n):
    return torch.full((n,), 1 / n, dtype=torch.float64)


RULES = {
    "sign_guard": lambda x: sign_guard(x, fraction=1.0),
    "fedsign": fedsign,
    "robust_dpfl": robust_dpfl,
    "lasa": lambda x: lasa(x, LAYERS),
    "flguardian": lambda x: flguardian(x, LAYERS),
    "fltrust": lambda x: fltrust(x, torch.ones(60)),
}


@pytest.mark.parametrize("rule", RULES)
def test_weights_give_the_aggregate_and_input_is_left_alone(rule):
    x = noise(12, 60, 1, shift=0.3)
    before = x.clone()
    result = RULES[rule](x)
    assert torch.equal(x, before)
    if rule != "lasa":
        torch.testing.assert_close(
            result.gradient.double(), result.weights @ x.double(), rtol=1e-4, atol=1e-5
        )
        return
    assert float(result.weights.sum()) == pytest.approx(1)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("n", [2, 3, 64])
def test_equal_rows_are_all_kept(rule, n):
    row = noise(1, 60, 2, shift=0.5)
    result = RULES[rule](row.expand(n, -1).clone())
    if result.selected is not None:
        assert result.selected.all()
    if rule not in ("lasa", "fltrust"):
        torch.testing.assert_close(result.gradient, row[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_zero_rows_do_no_harm(rule):
    result = RULES[rule](torch.cat([torch.zeros(3, 60), noise(9, 60, 3, shift=0.5)]))
    assert torch.isfinite(result.gradient).all()
    assert torch.equal(RULES[rule](torch.zeros(5, 60)).gradient, torch.zeros(60))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("lie", [-1e19, 1e30, 3e38])
def test_huge_rows_give_a_finite_aggregate(rule, lie):
    x = torch.cat([noise(12, 60, 4, shift=0.5), torch.full((4, 60), lie)])
    result = RULES[rule](x)
    assert torch.isfinite(result.gradient).all()
    if rule not in ("fedsign", "robust_dpfl"):  # signs say nothing of length; Robust-DPFL likes low means
        assert float(result.gradient.abs().max()) < 20


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 20))
def test_order_of_clients_does_not_matter(rule, seed, n):
    x = noise(n, 60, seed, shift=0.2)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    one, other = RULES[rule](x), RULES[rule](x[order])
    torch.testing.assert_close(one.weights[order], other.weights, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("rule", [fedsign, robust_dpfl, flguardian])
def test_at_least_two_clients(rule):
    with pytest.raises(TooFewClients, match="needs n >= 2, got n=1"):
        rule(torch.zeros(1, 60))


# -- FLTrust -----------------------------------------------------------------------------------------


def test_fltrust_written_out():
    x, root = noise(9, 60, 5, shift=0.2), noise(1, 60, 6, shift=0.2)[0]
    wide, g = x.double().numpy(), root.double().numpy()
    trust = np.maximum(0, wide @ g / np.linalg.norm(wide, axis=1) / np.linalg.norm(g))
    scaled = wide / np.linalg.norm(wide, axis=1, keepdims=True) * np.linalg.norm(g)
    np.testing.assert_allclose(fltrust(x, root).gradient, trust @ scaled / trust.sum(), rtol=1e-4, atol=1e-6)


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


def test_fltrusts_root_gradient_is_a_function_of_the_global_model():
    model = {"a": np.full((2, 3), 2, np.float32), "b": np.full(4, 3, np.float32)}
    strategy = FLTrust(lambda arrays: [array / 10 for array in arrays])
    begin_round(strategy, model, [1, 2])
    rows = [np.concatenate([model["a"].ravel(), model["b"]]) * scale for scale in (0.5, 3.0)]
    new = strategy.aggregate_uploads([upload(row, i) for i, row in enumerate(rows)])
    np.testing.assert_allclose(new[:6], 2 - 0.2, rtol=1e-5)  # the first agrees: w - w / 2
    assert strategy.last_round.weights[1] == 0  # the second points away: w - 3 w
    wrong = FLTrust(lambda arrays: arrays[:1])
    begin_round(wrong, model, [1, 2])
    with pytest.raises(ValueError, match="root_gradient must return arrays of shapes"):
        wrong.aggregate_uploads([upload(row, i) for i, row in enumerate(rows)])
    with pytest.raises(ValueError, match="FLTrust needs root_gradient"):
        FLTrust().apply(torch.ones(3, 2), equal(3))
    constant = FLTrust(torch.ones(2)).apply(torch.ones(3, 2), equal(3)).gradient
    assert constant.tolist() == pytest.approx([1, 1])


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


def test_fedsign_written_out():
    x = noise(9, 60, 8, shift=0.4)
    x[:3] *= -1
    signs = np.sign(x.numpy())
    signs /= np.linalg.norm(signs, axis=1, keepdims=True)
    density = [np.mean([(1 - signs[i] @ signs[j]) / 2 for j in range(9) if j != i]) for i in range(9)]
    result = fedsign(x)
    assert result.selected.tolist() == (np.array(density) <= np.mean(density)).tolist()
    assert result.info["greatest_density"] == pytest.approx(max(density))
    assert not result.selected[:3].any()


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
    x = torch.cat([noise(8, 60, 11, shift=-0.5), noise(2, 60, 12, shift=3.0)])
    sizes = torch.arange(1, 11, dtype=torch.float64) / 55
    result = rule(x, sizes)
    kept = result.selected
    assert not kept[8:].any()
    torch.testing.assert_close(result.weights[kept], sizes[kept] / sizes[kept].sum())


# -- LASA, FLGuardian --------------------------------------------------------------------------------


def slow_lasa(x, layers, sparsity, lambda_n, lambda_d):
    sparse = np.zeros_like(x)
    keep = int(np.ceil((1 - sparsity) * x.shape[1] - 1e-9))
    for i, row in enumerate(x):
        for j in sorted(range(len(row)), key=lambda j: (-abs(row[j]), j))[:keep]:
            sparse[i, j] = row[j]

    def inside(values, width):
        away = np.abs(values - np.median(values))
        return away <= max(width * 1.4826 * np.median(away), away.min())

    out = []
    for layer in layers:
        part = sparse[:, layer].astype(float)
        norms = np.sqrt((part**2).sum(1))
        nonzero = (part != 0).sum(1)
        purity = np.where(nonzero > 0, (part > 0).sum(1) / np.maximum(1, nonzero), 0.5)
        both = inside(norms, lambda_n) & inside(purity, lambda_d)
        out.append(part[both if both.any() else inside(norms, lambda_n)].mean(0))
    return np.concatenate(out)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(1, 20), st.sampled_from([0.0, 0.3, 0.9]), st.sampled_from([1.0, 2.0])
)
def test_lasa_written_out(seed, n, sparsity, width):
    x = noise(n, 60, seed)
    expected = slow_lasa(x.numpy(), LAYERS, sparsity, width, width)
    np.testing.assert_allclose(
        lasa(x, LAYERS, sparsity, width, width).gradient, expected, rtol=1e-4, atol=1e-5
    )


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
    x[2:4, LAYERS[1]] -= 20
    result = flguardian(x, LAYERS)
    assert not result.selected[:4].any()
    assert int(result.selected.sum()) >= 7
    assert result.info["greatest_trust"] == 1


@pytest.mark.parametrize("make", [LASA, FLGuardian])
def test_strategies_take_the_models_layers(make):
    model = {"a": np.zeros((2, 5), np.float32), "n": np.zeros((), np.int64), "b": np.zeros(50, np.float32)}
    strategy = make()
    assert strategy.layers == ()
    begin_round(strategy, model, [1])
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
