"""Fang's attacks: beyond the extremes, and as far as Krum lets them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from views import view

from byzflower.attacks import FangKrum, FangScale, FangTrimmedMean, fang_krum, fang_trimmed_mean


def rows(m=(1, 30), d=(1, 40)):
    def make(m, d, seed, offset):
        x = np.random.default_rng(seed).normal(size=(m, d)) + offset
        x[:, : d // 4] = np.round(x[:, : d // 4])
        return torch.from_numpy(x.astype(np.float32))

    return st.builds(
        make, st.integers(*m), st.integers(*d), st.integers(0, 2**32), st.sampled_from([0, 3, -3])
    )


@settings(max_examples=80, deadline=None)
@given(rows(), st.integers(1, 5), st.sampled_from([1.0, 2.0, 10.0]))
def test_fang_trimmed_mean_is_beyond_the_extreme_by_at_most_the_factor(x, f, b):
    got = fang_trimmed_mean(x, f, b, torch.Generator().manual_seed(1)).double().numpy()
    assert got.shape == (f, x.shape[1])
    for j in range(x.shape[1]):
        column = x[:, j].double()
        if float(column.mean()) > 1e-6:
            nearest, low = float(column.min()), True
        elif float(column.mean()) < -1e-6:
            nearest, low = float(column.max()), False
        else:
            continue
        away = b if (nearest > 0) != low else 1 / b
        ends = sorted([nearest, nearest * away])
        slack = 1e-6 * max(map(abs, ends))
        assert (ends[0] - slack <= got[:, j]).all()
        assert (got[:, j] <= ends[1] + slack).all()
        assert (got[:, j] <= nearest + slack).all() if low else (got[:, j] >= nearest - slack).all()


def test_attackers_on_the_trimmed_mean_draw_for_themselves():
    x = torch.randn(8, 100, generator=torch.Generator().manual_seed(2))
    one, two = FangTrimmedMean().craft(view(x, 2))
    assert not torch.equal(one, two)
    again = FangTrimmedMean().craft(view(x, 2))
    assert torch.equal(again[0], one)
    with pytest.raises(ValueError, match=r"b must be at least 1, got 0.5"):
        FangTrimmedMean(b=0.5)


def krum_scores(x, f):
    n = len(x)
    d = ((x[:, None] - x[None]) ** 2).sum(axis=2)
    return [np.sort(np.delete(d[i], i))[: n - f - 2].sum() for i in range(n)]


def picked(x, f, step):
    """Whether Krum picks an attacker among the benign rows and f copies of -step sign(mu)."""
    attack = -step * np.sign(x.mean(axis=0))
    scores = krum_scores(np.vstack([x, np.tile(attack, (f, 1))]), f)
    return scores[len(x)] < min(scores[: len(x)])


def first_step(x, f):
    """Fang et al.'s upper bound on lambda."""
    m, d = x.shape
    n = m + f
    distances = ((x[:, None] - x[None]) ** 2).sum(axis=2)
    least = min(np.sort(np.delete(distances[i], i))[: n - f - 2].sum() for i in range(m))
    return np.sqrt(least / ((n - 2 * f - 1) * d)) + np.sqrt((x**2).sum(axis=1).max() / d)


@settings(max_examples=60, deadline=None)
@given(rows(m=(4, 20), d=(2, 30)), st.data())
def test_fang_krum_halves_until_krum_picks_it(x, data):
    f = data.draw(st.integers(1, (len(x) - 2) // 2))  # n = m + f > 2f + 2
    got = fang_krum(x.double(), f).numpy()
    x = x.double().numpy()
    sign = np.sign(x.mean(axis=0))
    steps = -got[sign != 0] * sign[sign != 0]
    np.testing.assert_allclose(steps, steps[0])
    assert (got[sign == 0] == 0).all()
    halvings = np.log2(first_step(x, f) / steps[0])
    assert abs(halvings - round(halvings)) < 1e-6
    if round(halvings) < 40:
        assert picked(x, f, steps[0] * (1 - 1e-9))
    for earlier in range(min(round(halvings), 6)):
        assert not picked(x, f, steps[0] * 2 ** (earlier + 1) * (1 + 1e-9))


def test_krum_picks_fangs_attack_on_clients_that_agree():
    generator = torch.Generator().manual_seed(3)
    x = 0.01 + 0.1 * torch.randn(12, 1000, generator=generator)
    upload = FangKrum().craft(view(x, 4, 16))
    assert upload.shape == (4, 1000)
    scores = krum_scores(torch.cat([x, upload]).double().numpy(), 4)
    assert np.argmin(scores) >= 12
    assert float(upload[0] @ x.mean(dim=0)) < 0


def test_fang_scale_draws_its_factor():
    x = torch.randn(6, 7, generator=torch.Generator().manual_seed(4))
    factors = set()
    for seed in range(30):
        crafted = FangScale().craft(view(x, 3, generator=torch.Generator().manual_seed(seed)))
        factor = -crafted[0] / x.mean(dim=0)
        torch.testing.assert_close(factor, factor[:1].expand(7), rtol=1e-4, atol=1e-4)
        assert float(factor.double().mean()) + 1e-4 >= 3
        assert float(factor.double().mean()) <= 4 + 1e-4
        factors.add(round(float(factor[0]), 3))
    assert len(factors) > 20
    with pytest.raises(ValueError, match=r"low <= high is needed, got low=5, high=4.0"):
        FangScale(low=5)
