"""Pre-aggregations against what they would be if every step were written out, and what they report."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from byzflower.strategies import (
    AdaptiveClip,
    Bucketing,
    Clip,
    FedAvg,
    Krum,
    Median,
    MultiKrum,
    NearestNeighborMixing,
    Rows,
    Sparsify,
    TooFewClients,
    median,
    multi_krum,
)

NNM = NearestNeighborMixing


def noise(n, d, seed=0, dtype=torch.float32):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def distances(x):
    wide = x.double()
    return torch.stack([((wide - row) ** 2).sum(1) for row in wide])


# -- each step written out ---------------------------------------------------------------------------


def slow_nnm(x, f):
    n, wide = len(x), x.double()
    out = []
    for i in range(n):
        away = [(-1.0 if j == i else float(((wide[i] - wide[j]) ** 2).sum()), j) for j in range(n)]
        out.append(wide[[j for _, j in sorted(away)[: n - f]]].mean(0))
    return torch.stack(out)


def slow_clip(x, limit):
    wide = x.double()
    return torch.stack([row * min(1, limit / max(float(row.norm()), 1e-300)) for row in wide])


def slow_arc(x, f):
    n = len(x)
    k = math.floor(2 * (f / n) * (n - f) + 1e-12)
    limit = sorted((float(row.double().norm()) for row in x), reverse=True)[k]
    return slow_clip(x, limit)


def slow_sparsify(x, k):
    out = torch.zeros_like(x)
    for i, row in enumerate(x.tolist()):
        for j in sorted(range(len(row)), key=lambda j: (-abs(row[j]), j))[:k]:
            out[i, j] = row[j]
    return out


def slow_bucketing(x, s, rows):
    """Means of the buckets that the mixing matrix names; that it deals fairly is tested apart."""
    return torch.stack([x.double()[mixing > 0].mean(0) for mixing in rows.mixing])


STEPS = {
    "nnm": (NNM(2), lambda x, rows: slow_nnm(x, 2)),
    "clip": (Clip(5.0), lambda x, rows: slow_clip(x, 5.0)),
    "arc": (AdaptiveClip(2), lambda x, rows: slow_arc(x, 2)),
    "sparsify": (Sparsify(3), lambda x, rows: slow_sparsify(x, 3)),
    "bucketing": (Bucketing(3), lambda x, rows: slow_bucketing(x, 3, rows)),
}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize(("n", "d"), [(3, 4), (7, 40), (8, 3000), (64, 70)])
def test_a_step_is_what_it_says(name, n, d):
    step, slow = STEPS[name]
    x = noise(n, d, n)
    rows = step.apply(Rows.of(x))
    expected = slow(x, rows).double()
    torch.testing.assert_close(rows.matrix().double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(rows.squared_distances, distances(expected), rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(rows.squared_norms, (expected**2).sum(1), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("names", list(itertools.permutations(["nnm", "clip", "bucketing", "sparsify"], 2)))
@pytest.mark.parametrize("d", [50, 5000])
def test_steps_compose(names, d):
    x = noise(11, d, 1)
    rows, expected = Rows.of(x), x
    for name in names:
        step, slow = STEPS[name]
        if name == "bucketing":
            alone = step.apply(Rows.of(x))
            expected = slow_bucketing(expected, 3, alone)
        else:
            expected = slow(expected, None)
        rows = step.apply(rows)
    torch.testing.assert_close(rows.matrix().double(), expected.double(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(rows.squared_distances, distances(expected), rtol=1e-5, atol=1e-9)
    columns = slice(d // 3, d // 2)
    torch.testing.assert_close(rows.part(columns).matrix(), rows.matrix()[:, columns])
    weights = torch.rand(rows.n, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.testing.assert_close(
        rows.combine(weights).double(), weights @ expected.double(), rtol=1e-4, atol=1e-5
    )
    some = torch.tensor([3, 0, d - 1])
    torch.testing.assert_close(rows.block(some), rows.matrix()[:, some])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12), st.sampled_from([1e-6, 1e-3, 1.0]))
def test_distances_of_mixtures_keep_their_digits(seed, n, spread):
    """Close groups far apart, with mixtures that share most of what they are made of."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(1, 900)) + spread * random.normal(size=(n, 900))
    x[: n // 3] += random.normal(size=(n // 3, 1)) * 1e4
    x = torch.from_numpy(x.astype(np.float32))
    mixing = torch.from_numpy(random.integers(0, 3, size=(n, n)) * 1.0) + torch.eye(n, dtype=torch.float64)
    mixing /= mixing.sum(1, keepdim=True)
    rows = Rows.of(x).mixed(mixing)
    expected = distances(mixing @ x.double())
    # What the float32 data cannot say is not asked for.
    torch.testing.assert_close(rows.squared_distances, expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("lie", [1e19, 1e30, 3e38])
@pytest.mark.parametrize(
    "pre", [[NNM(3)], [Clip(10.0), NNM(3)], [AdaptiveClip(3)], [AdaptiveClip(3), NNM(3)]]
)
def test_huge_uploads_leave_no_trace(lie, pre):
    x = torch.cat([torch.full((3, 900), lie), noise(12, 900)])
    rows = Rows.of(x)
    for step in pre:
        rows = step.apply(rows)
    result = multi_krum(rows, 3)
    assert torch.isfinite(result.gradient).all()
    if len(pre) == 1 and isinstance(pre[0], NNM):  # clipped, they are no outliers any more
        assert not result.selected[:3].any()
    assert result.gradient.abs().max() < 3
    assert torch.isfinite(rows.squared_distances).all()


def test_bucketing_deals_everybody_once_and_anew_every_round():
    x = noise(10, 4)
    deals = [Bucketing(4).apply(Rows.of(x), seed=seed).mixing for seed in range(5)]
    for mixing in deals:
        assert sorted((mixing > 0).sum(1).tolist()) == [2, 4, 4]
        assert ((mixing > 0).sum(0) == 1).all()
    assert any(not torch.equal(deals[0], other) for other in deals[1:])
    again = Bucketing(4).apply(Rows.of(x), seed=3).mixing
    assert torch.equal(again, deals[3])
    assert not torch.equal(Bucketing(4, seed=1).apply(Rows.of(x), seed=3).mixing, again)


def test_nothing_is_modified():
    x = noise(9, 30)
    before = x.clone()
    rows = Rows.of(x)
    for step, _ in STEPS.values():
        rows = step.apply(rows)
        median(rows).gradient.add_(1)
    assert torch.equal(x, before)


# -- with rules --------------------------------------------------------------------------------------


def round_of(strategy, server_round=1):
    strategy.last_round.round = server_round
    return strategy


def equal(n):
    return torch.full((n,), 1 / n, dtype=torch.float64)


@pytest.mark.parametrize("rule", [MultiKrum(1), Krum(1), Median(), FedAvg()], ids=lambda r: type(r).__name__)
@pytest.mark.parametrize("name", STEPS)
def test_a_rule_after_a_step_is_the_rule_on_its_rows(rule, name):
    x = noise(17, 1200, 5)
    step, _ = STEPS[name]
    options = {"num_byzantine": 1} if isinstance(rule, MultiKrum | Krum) else {}
    strategy = type(rule)(**options, pre=[step], seed=3)
    rows = strategy.pre_aggregate(x)
    expected = rule.aggregate(Rows.of(rows.matrix().clone()), rows.from_clients(equal(17))).gradient
    result = strategy.apply(x, equal(17))
    torch.testing.assert_close(result.gradient, expected, rtol=1e-5, atol=1e-6)
    if result.weights is not None and name != "sparsify":
        torch.testing.assert_close(
            result.gradient.double(), result.weights @ x.double(), rtol=1e-4, atol=1e-5
        )


def test_selection_and_weights_are_said_of_clients():
    x = torch.cat([torch.full((1, 600), 50.0), noise(11, 600)])
    result = MultiKrum(1, pre=[Bucketing(2)]).apply(x, equal(12))
    assert len(result.selected) == len(result.weights) == 12
    assert not result.selected[0]
    assert result.weights[0] == 0
    assert int(result.selected.sum()) == 10
    assert result.weights[result.selected].tolist() == pytest.approx([0.1] * 10)
    clipped = MultiKrum(1, pre=[Clip(1.0)]).apply(x, equal(12))
    assert int(clipped.selected.sum()) == 11


def test_claimed_sizes_follow_the_clients_into_their_buckets():
    x = noise(5, 30)
    claims = torch.tensor([0.4, 0.3, 0.1, 0.1, 0.1], dtype=torch.float64)
    rows = Bucketing(2).apply(Rows.of(x))
    assert rows.from_clients(claims).tolist() == pytest.approx(((rows.mixing > 0).double() @ claims).tolist())


def test_rounds_differ_and_repeat():
    x = noise(12, 20)
    strategy = Median(pre=[Bucketing(3)], seed=4)
    first = round_of(strategy, 1).apply(x, equal(12)).gradient
    second = round_of(strategy, 2).apply(x, equal(12)).gradient
    assert not torch.equal(first, second)
    assert torch.equal(round_of(Median(pre=[Bucketing(3)], seed=4), 1).apply(x, equal(12)).gradient, first)


def test_a_fraction_counts_clients_not_buckets():
    strategy = Krum(0.2, pre=[Bucketing(2)])
    with pytest.raises(TooFewClients, match=r"Krum needs n > 2f \+ 2, got n=5, f=2"):
        strategy.apply(noise(10, 5), equal(10))


def test_f_is_the_rules_unless_named():
    x = noise(9, 50)
    by_rule = MultiKrum(2, pre=[NNM()]).apply(x, equal(9)).gradient
    by_name = MultiKrum(2, pre=[NNM(2)]).apply(x, equal(9)).gradient
    assert torch.equal(by_rule, by_name)
    for step in (NNM(), AdaptiveClip()):
        with pytest.raises(ValueError, match=f"{type(step).__name__} needs num_byzantine"):
            Median(pre=[step]).apply(x, equal(9))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Bucketing(0), "s must be at least 1, got 0"),
        (lambda: Clip(0), "max_norm must be positive, got 0"),
        (lambda: Sparsify(0), r"top_k must be a positive integer or a fraction in \(0, 1\], got 0"),
        (lambda: Sparsify(1.5), "top_k must be"),
        (lambda: NNM(-1).apply(Rows.of(torch.zeros(4, 2))), "num_byzantine must not be negative, got -1"),
        (lambda: NNM(4).apply(Rows.of(torch.zeros(4, 2))), "NearestNeighborMixing needs n > f, got n=4, f=4"),
        (lambda: AdaptiveClip(4).apply(Rows.of(torch.zeros(4, 2))), "AdaptiveClip needs n > f"),
    ],
)
def test_mistakes_are_named(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_ties_of_sparsify_go_to_the_lower_column():
    x = torch.tensor([[1.0, -2, 2, -2, 0], [0, 0, 0, 0, 0]])
    assert Sparsify(2).apply(Rows.of(x)).matrix().tolist() == [[0, -2, 2, 0, 0], [0] * 5]
    assert Sparsify(0.5).apply(Rows.of(x)).matrix().tolist() == [[0, -2, 2, -2, 0], [0] * 5]
    assert Sparsify(9).apply(Rows.of(x)).matrix().tolist() == x.tolist()
