"""The line search finds what hurts the server's rule."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from views import view

from byzflower.attacks import OptimalALIE, OptimalIPM, alie, ipm
from byzflower.attacks.line_search import largest
from byzflower.strategies import krum, trimmed_mean


@given(st.floats(0, 300), st.integers(10, 40))
def test_the_search_finds_the_top_of_a_hill(top, evaluations):
    calls = []

    def hill(x):
        calls.append(x)
        return -abs(x - top)

    found = largest(hill, evaluations)
    assert len(calls) == evaluations
    assert min(calls) == 0
    assert abs(found - top) <= min(abs(x - top) for x in calls)
    if evaluations >= 30:
        assert abs(found - top) < 0.05 * max(top, 1)


def test_it_climbs_to_a_cliff_and_no_further():
    found = largest(lambda x: x if x < 7.3 else 0.0, 30)
    assert 7.2 < found < 7.3


def test_it_keeps_to_what_it_may_spend():
    calls = []
    assert largest(lambda x: calls.append(x) or x, 1) == 0
    assert calls == [0.0]


def benign(m=12, d=30):
    return torch.randn(m, d, generator=torch.Generator().manual_seed(0)) + 0.5


RULES = {
    "krum": lambda rows, f: krum(rows, f).gradient,
    "trimmed mean": lambda rows, f: trimmed_mean(rows, f).gradient,
    "mean": lambda rows, f: rows.mean(dim=0),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("attack", "upload"),
    [
        (OptimalALIE(), lambda x, s: alie(x, s)),
        (OptimalALIE(sign=1), lambda x, s: alie(x, s, 1)),
        (OptimalIPM(), ipm),
    ],
)
def test_it_is_nearly_as_bad_as_the_worst_of_a_grid(rule, attack, upload):
    x, f = benign(), 3
    mu = x.mean(dim=0)

    def aggregate(crafted):
        return RULES[rule](torch.cat([crafted, x]), f)

    def harm(upload):
        return float((aggregate(upload.expand(f, -1)) - mu).norm())

    crafted = attack.craft(view(x, f, 15, aggregate=aggregate))
    strengths = [i / 10 for i in range(100)]
    worst = max(harm(upload(x, s)) for s in strengths)
    assert crafted.shape == (f, 30)
    if rule == "mean":  # has no worst
        assert harm(crafted[0]) > worst
    else:
        assert harm(crafted[0]) > 0.8 * worst


def test_a_rule_that_refuses_or_blows_up_is_not_harmed():
    x = benign()
    crafted = OptimalIPM().craft(view(x, aggregate=lambda c: torch.full((30,), torch.nan)))
    torch.testing.assert_close(crafted[0], torch.zeros(30))


@pytest.mark.parametrize("cls", [OptimalALIE, OptimalIPM])
def test_without_the_rule_it_says_what_it_needs(cls):
    with pytest.raises(ValueError, match=r"they need knowledge=omniscient and a strategy of byzflower"):
        cls().craft(view(benign(), aggregate=None))
    with pytest.raises(ValueError, match="evaluations must be at least 1, got 0"):
        cls(evaluations=0)
