"""Every registered strategy, as a whole: hostile rows, from the fewest clients to many, going on later."""

import inspect
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byzflower.strategies import STRATEGIES, Clip, MomentsStrategy
from flower import begin_round

MODEL = {"a": np.full((3, 4), 0.5, np.float32), "b": np.zeros(20, np.float32)}
D = 32
# Strategies of moments take other uploads and have tests of their own (test_arfrs.py).
RULES = [name for name, rule in STRATEGIES.items() if not issubclass(rule, MomentsStrategy)]
OPTIONS = {
    "fltrust": {"root_upload": lambda server_round, arrays: [a - np.float32(0.5) for a in arrays]},
    "normclipping": {"max_norm": 3.0},
    "signmajority": {"step": 0.1},
}
# The fewest clients with f Byzantine ones.
FEWEST = {
    "krum": lambda f: 2 * f + 3,
    "multikrum": lambda f: 2 * f + 3,
    "bulyan": lambda f: 4 * f + 3,
    "trimmedmean": lambda f: 2 * f + 1,
    "normtrimmedmean": lambda f: 2 * f + 1,
    "rbtm": lambda f: 2 * f + 1,
    "caf": lambda f: 2 * f + 1,
    **dict.fromkeys(("meamed", "mda", "smea", "monna", "dnc"), lambda f: f + 1),
    **dict.fromkeys(("fedsign", "flguardian", "robustdpfl"), lambda f: 2),
}
# An upload of any length can enter these means.
NOT_BOUNDED = {"fedavg", "fedsign", "robustdpfl"}


def make(name, f, **options):
    bounded = "num_byzantine" in inspect.signature(STRATEGIES[name]).parameters
    return STRATEGIES[name](**OPTIONS.get(name, {}), **({"num_byzantine": f} if bounded else {}), **options)


def uploads(strategy, rows):
    """One upload per row of pseudo-gradients, of the strategy's kind, with nothing left out."""
    layout, start = strategy.sent
    kind = strategy.upload.everything()
    with np.errstate(over="ignore"):
        models = (start - np.asarray(rows)).astype(np.float32)
    sent = [kind.encode(layout.arrays(row), layout.arrays(start), layout, {}) for row in models]
    return [
        kind.decode(kind.named(arrays, layout), layout, [i], np.array([10.0]), [{}], cohort=False)
        for i, arrays in enumerate(sent)
    ]


def one_round(strategy, rows, server_round=1):
    """The step that the strategy makes of the rows, or None if it skips the round."""
    begin_round(strategy, MODEL, [1, 2], server_round)
    new = strategy.aggregate_uploads(uploads(strategy, rows))
    return None if new is None else np.concatenate([array.ravel() for array in MODEL.values()]) - new


def honest(n, seed=0):
    return 0.5 + np.random.default_rng(seed).normal(size=(n, D))


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=12, deadline=None)
@given(st.integers(0, 5), st.integers(0, 40), st.integers(0, 10**6))
def test_from_the_fewest_clients_to_many(name, f, more, seed):
    n = min(64, FEWEST.get(name, lambda f: 1)(f) + more)
    step = one_round(make(name, f), honest(n, seed))
    assert np.isfinite(step).all()
    assert np.linalg.norm(step) < 2 * math.sqrt(D * 1.25)


@pytest.mark.parametrize("name", FEWEST)
def test_one_client_too_few_skips_the_round(name):
    for f in (1, 3):
        strategy = make(name, f)
        n = FEWEST[name](f) - 1
        assert one_round(strategy, honest(n)) is None
        assert f"got n={n}" in strategy.last_round.skipped


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("lie", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("first", [True, False])
def test_rows_that_are_not_finite_are_as_if_they_had_not_come(name, lie, first):
    f, n = 4, 24
    rows = honest(n)
    liars = np.arange(f) if first else np.arange(n - f, n)
    rows[liars, 7] = lie
    strategy = make(name, f)
    step = one_round(strategy, rows)
    assert [client for client, _ in strategy.last_round.rejections] == liars.tolist()
    np.testing.assert_array_equal(step, one_round(make(name, f), np.delete(rows, liars, axis=0)))


@pytest.mark.parametrize("name", sorted({*RULES} - NOT_BOUNDED))
@pytest.mark.parametrize("lie", [1e9, -1e15, 3e18])
@pytest.mark.parametrize("first", [True, False])
def test_huge_rows_move_the_model_no_farther_than_honest_ones_could(name, lie, first):
    f, n = 5, 24
    rows = honest(n)
    rows[:f] = lie
    if not first:
        rows = rows[::-1]
    step = one_round(make(name, f), rows)
    assert np.linalg.norm(step) < 2 * math.sqrt(D * 1.25)


@pytest.mark.parametrize("name", sorted(NOT_BOUNDED))
def test_huge_rows_never_leave_a_model_that_is_not_finite(name):
    rows = honest(24)
    rows[:5] = 3e38
    step = one_round(make(name, 5), rows)
    assert step is None or np.isfinite(step).all()


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("options", [{}, {"cosine": True}])
def test_going_on_from_a_saved_state_changes_nothing(name, options):
    if not options.keys() <= inspect.signature(STRATEGIES[name]).parameters.keys():
        options = {}
    strategy, twin = (make(name, 3, **options) for _ in range(2))
    for server_round in (1, 2):
        one_round(strategy, honest(16, server_round), server_round)
    twin.load_state_dict({key: np.array(value) for key, value in strategy.state_dict().items()})
    later = [one_round(s, honest(16, 3), 3) for s in (strategy, twin)]
    np.testing.assert_array_equal(*later)


@pytest.mark.parametrize("name", RULES)
def test_a_whole_model_of_equal_rows(name):
    step = one_round(make(name, 2), np.full((12, D), 0.25))
    assert np.isfinite(step).all()
    assert np.linalg.norm(step) <= np.linalg.norm(np.full(D, 0.5)) * (1 + 1e-6)


@pytest.mark.parametrize("name", sorted({*RULES} - {"safesparse"}))  # it looks at masks
def test_every_strategy_takes_pre_aggregations(name):
    strategy = make(name, 2, pre=[Clip(1.0)])
    assert strategy.pre == (Clip(1.0),)
    assert np.isfinite(one_round(strategy, 100 * honest(12))).all()
