"""Bulyan, DnC, MDA, SMEA, CAF, MoNNA: what sets each apart."""

import itertools

import numpy as np
import pytest
import torch

from byzflower.strategies import CAF, TooFewClients, bulyan, caf, dnc, mda, monna, smea
from byzflower.strategies.monna import MoNNA


def noise(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def with_liars(f, honest, d, offset, seed=0):
    return torch.cat([noise(f, d, seed) * 0.1 + offset, noise(honest, d, seed + 1)])


@pytest.mark.parametrize(("n", "f"), [(3, 0), (7, 1), (11, 2), (64, 15)])
def test_bulyan_from_its_minimum_on_selects_distinct_rows(n, f):
    result = bulyan(noise(n, 20, n), f)
    assert int(result.selected.sum()) == n - 2 * f
    with pytest.raises(TooFewClients, match=rf"Bulyan needs n >= 4f \+ 3, got n={n}, f={f + 1}"):
        bulyan(noise(n, 20), f + 1)


@pytest.mark.parametrize("rule", [mda, smea])
@pytest.mark.parametrize("offset", [3.0, 1e19])
@pytest.mark.parametrize("max_subsets", [0, 20_000])
def test_exact_and_approximate_search_find_the_liars_and_say_which_they_were(rule, offset, max_subsets):
    result = rule(with_liars(4, 8, 50, offset), 4, max_subsets)
    assert result.info == {"exact": float(max_subsets > 0)}
    assert result.selected.tolist() == [False] * 4 + [True] * 8


@pytest.mark.parametrize("rule", [mda, smea])
def test_approximate_search_drops_identical_liars(rule):
    x = torch.cat([noise(25, 30), torch.full((15, 30), 4.0)])
    result = rule(x, 15)
    assert result.info["exact"] == 0
    assert result.selected.tolist() == [True] * 25 + [False] * 15


@pytest.mark.parametrize("rule", [mda, smea])
def test_exact_search_is_the_best_of_all(rule):
    x = noise(9, 6, 7)
    chosen = rule(x, 3).selected.nonzero().squeeze(1).tolist()

    def cost(subset):
        rows = x[list(subset)].double().numpy()
        if rule is smea:
            return np.linalg.norm(rows - rows.mean(0), 2)
        return ((rows[:, None] - rows[None]) ** 2).sum(2).max()

    least = min(map(cost, itertools.combinations(range(9), 6)))
    assert cost(chosen) <= least * (1 + 1e-9)
    if rule is mda:  # squared distances: twice the diameter is four times that
        approximate = rule(x, 3, max_subsets=0).selected.nonzero().squeeze(1).tolist()
        assert cost(approximate) <= 4 * least


@pytest.mark.parametrize("offset", [5.0, 1e10, 1e19, 1e30])
@pytest.mark.parametrize("rule", [caf, dnc, mda, smea])
def test_outliers_do_not_move_the_result(rule, offset):
    x = with_liars(4, 16, 400, offset)
    honest = x[4:].mean(0)
    assert float((rule(x, 4).gradient - honest).norm()) < 10


def test_caf_keeps_the_mean_without_attackers():
    x = noise(10, 20)
    torch.testing.assert_close(caf(x, 0).gradient, x.mean(0))
    result = caf(torch.ones(5, 3), 2)
    assert result.gradient.tolist() == [1, 1, 1]
    assert result.info["top_eigenvalue"] == 0
    assert CAF(0.4).apply(x, torch.full((10,), 0.1, dtype=torch.float64)).weights.sum() == pytest.approx(1)


def test_dnc_uses_the_direction_of_largest_variance():
    """Liars apart along one axis by little, but together: only the top direction shows them."""
    random = np.random.default_rng(0)
    x = random.normal(size=(20, 50)).astype(np.float32)
    x[:5, 7] += 12
    assert dnc(torch.from_numpy(x), 5, b=50).selected.tolist() == [False] * 5 + [True] * 15


def test_dnc_samples_by_seed_and_falls_back_on_the_last_iteration():
    x = noise(8, 500)
    assert torch.equal(dnc(x, 2, b=20, seed=1).gradient, dnc(x, 2, b=20, seed=1).gradient)
    kept = [dnc(x, 2, b=5, seed=s).selected.tolist() for s in range(8)]
    assert any(k != kept[0] for k in kept)
    result = dnc(x, 7, niters=30, b=5)
    assert int(result.selected.sum()) == 1
    for options, text in [({"c": 0}, "c must be"), ({"niters": 0}, "niters must"), ({"b": 0}, "b must be")]:
        with pytest.raises(ValueError, match=text):
            dnc(x, 2, **options)


def test_monna_trusts_whom_it_is_told_to():
    x = torch.tensor([[0.0], [1], [2], [3], [50], [51]])
    assert monna(x, 4, trusted=5).gradient.tolist() == [50.5]
    assert monna(x, 4).selected.tolist() == [False, True, True, False, False, False]
    with pytest.raises(ValueError, match=r"trusted must be in \[0, 6\), got 6"):
        monna(x, 4, trusted=6)
    strategy, equal = MoNNA(4, trusted=17), torch.full((6,), 1 / 6, dtype=torch.float64)
    strategy.last_round.clients = [1, 2, 3, 5, 8, 17]
    assert strategy.apply(x, equal).gradient.tolist() == [50.5]
    strategy.last_round.clients = [1, 2, 3, 5, 8, 9]
    assert strategy.apply(x, equal).gradient.tolist() == [1.5]


def test_the_trusted_row_is_always_among_its_neighbours():
    x = torch.zeros(5, 3)
    assert monna(x, 4, trusted=3).selected.tolist() == [False, False, False, True, False]
