"""Strategies of the older API: what clients report about themselves cannot end a round, nor bend it."""

import math

import numpy as np
import pytest
from flwr.common import Code, EvaluateRes, FitRes, Parameters, Status, ndarrays_to_parameters
from hypothesis import given, settings
from hypothesis import strategies as st

from byzflower.strategies import LegacyStrategy, Median

pytestmark = pytest.mark.compat

GLOBAL = [np.zeros((2, 3), np.float32), np.zeros(3, np.float32)]
OK = Status(Code.OK, "")
EVIL = "\x1b[31m\nWARNING: forged" + "a" * 5000


class Proxy:
    def __init__(self, cid):
        self.cid = str(cid)


class Manager:
    """Has these clients, and samples them all."""

    def __init__(self, proxies):
        self.proxies = proxies

    def num_available(self):
        return len(self.proxies)

    def sample(self, num_clients, min_num_clients=None, criterion=None):
        return self.proxies


def weighted(clients):
    """A user's function, as they are written: it counts on every client to report the same numbers."""
    total = sum(size for size, _ in clients)
    return {key: sum(size * own[key] for size, own in clients) / total for key in clients[0][1]}


def fit_result(number, metrics, size=10, arrays=GLOBAL, status=OK):
    return Proxy(number), FitRes(status, ndarrays_to_parameters(arrays), size, metrics)


def evaluation(number, metrics, loss=1.0, size=10, status=OK):
    return Proxy(number), EvaluateRes(status, loss, size, metrics)


def fit(results, function=weighted, failures=(), silent=()):
    strategy = LegacyStrategy(Median(), fit_metrics_aggregation_fn=function)
    asked = [*map(Proxy, silent), *(proxy for proxy, _ in results)] + [
        f[0] for f in failures if isinstance(f, tuple)
    ]
    strategy.configure_fit(1, ndarrays_to_parameters(GLOBAL), Manager(asked))
    _, metrics = strategy.aggregate_fit(1, results, list(failures))
    return metrics, strategy.robust.last_round


def evaluate(results, function=weighted):
    strategy = LegacyStrategy(Median(), evaluate_metrics_aggregation_fn=function)
    return strategy.aggregate_evaluate(1, results, [])


BENIGN = [{"accuracy": 0.25}, {"accuracy": 0.75}, {"accuracy": 0.5}]
BAD_METRICS = {
    "none": {},
    "another": {"other": 1.0},
    "one more": {"accuracy": 1.0, "other": 1.0},
    "text": {"accuracy": "high"},
    "bytes": {"accuracy": b"1"},
    "nothing": {"accuracy": None},
    "a list": {"accuracy": [1.0]},
    "NaN": {"accuracy": math.nan},
    "Inf": {"accuracy": -math.inf},
    "huge": {"accuracy": 1e308},
    "a huge integer": {"accuracy": 10**400},
    "many": {"accuracy": 0.5, **{f"m{i}": 1.0 for i in range(20_000)}},
}


@pytest.mark.parametrize("place", [0, 3], ids=["first", "last"])
@pytest.mark.parametrize("case", BAD_METRICS)
def test_one_clients_metrics_do_not_matter(case, place):
    everybody = [*BENIGN]
    everybody.insert(place, BAD_METRICS[case])
    fitted, record = fit([fit_result(i, own) for i, own in enumerate(everybody)])
    scored = evaluate([evaluation(i, own) for i, own in enumerate(everybody)])
    assert record.clients == [0, 1, 2, 3]  # the upload is a good one
    kept = 0.5 if case not in ("one more", "many") else (1.5 + BAD_METRICS[case]["accuracy"]) / 4
    assert fitted == scored[1] == {"accuracy": pytest.approx(kept)}
    assert scored[0] == 1.0


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["accuracy", "loss", "x"]), VALUES), st.integers(0, 3))
def test_no_metrics_of_one_client_move_an_average_out_of_the_benign_ones_range_but_by_its_share(bad, place):
    everybody = [{"accuracy": 0.5, "loss": 1.0}] * 3
    everybody.insert(place, bad)
    metrics, _ = fit([fit_result(i, own) for i, own in enumerate(everybody)])
    assert metrics.keys() == {"accuracy", "loss"}
    assert all(math.isfinite(value) for value in metrics.values())
    if not all(type(bad.get(key)) in (int, float, bool) for key in ("accuracy", "loss")):
        assert metrics == {"accuracy": 0.5, "loss": 1.0}


def test_metrics_of_the_users_own_kinds_arrive_as_they_are():
    seen = []

    def function(clients):
        seen.extend(clients)
        return {}

    own = {"accuracy": 1, "host": "a", "blob": b"x", "flag": True, "client-id": 3}
    results = [fit_result(i, {**own, "client-id": i}, 10 + i) for i in range(3)]
    fit([*results, fit_result(9, {**own, "host": 7, "client-id": 9})], function)
    assert seen == [(10 + i, {**own, "client-id": i}) for i in range(3)]


def test_what_all_report_as_nan_is_left_to_the_user():
    metrics, _ = fit([fit_result(i, {"loss": math.nan}) for i in range(3)])
    assert math.isnan(metrics["loss"])


def test_a_users_own_mistake_is_raised():
    with pytest.raises(ZeroDivisionError):
        fit([fit_result(0, {})], lambda clients: {"x": 1 / 0})


QUARANTINED = {
    "NaN": lambda: fit_result(9, {"accuracy": 1.5e-8}, 10**9, [g * np.nan for g in GLOBAL]),
    "another shape": lambda: fit_result(9, {"accuracy": 1.5e-8}, 10**9, GLOBAL[:1]),
    "a size": lambda: fit_result(9, {"accuracy": 1.5e-8}, 10**400),
    "a size of too many digits": lambda: fit_result(9, {"accuracy": 1.5e-8}, 10**5000),
    "a size in text": lambda: fit_result(9, {"accuracy": 1.5e-8}, "9"),
    "a status": lambda: fit_result(9, {"accuracy": 1.5e-8}, status=Status(Code.FIT_NOT_IMPLEMENTED, EVIL)),
    "an unknown status": lambda: fit_result(9, {"accuracy": 1.5e-8}, status=Status(77, EVIL)),
    "no status": lambda: fit_result(9, {"accuracy": 1.5e-8}, status=None),
    "no metrics": lambda: fit_result(9, None),
    "no parameters": lambda: (Proxy(9), FitRes(OK, None, 10, {})),
    "an evil type": lambda: (Proxy(9), FitRes(OK, Parameters([], EVIL), 10, {})),
}


@pytest.mark.parametrize("case", QUARANTINED)
def test_who_is_quarantined_has_no_say_in_the_metrics(case):
    benign = [fit_result(i, {"accuracy": 0.5, "client-id": i}) for i in range(3)]
    metrics, record = fit([*benign, QUARANTINED[case]()])
    assert metrics["accuracy"] == 0.5
    assert record.clients == [0, 1, 2]
    ((client, reason),) = record.rejections
    assert client == 9
    assert reason.isprintable()
    assert len(reason) <= 300


def test_failures_are_told_in_plain_text():
    class NoText(Exception):
        def __str__(self):
            raise ValueError("none")

    failed = Proxy(8), FitRes(Status(Code.FIT_NOT_IMPLEMENTED, EVIL), Parameters([], ""), 0, {})
    _, record = fit([fit_result(0, {})], failures=[NoText(), ValueError(EVIL), failed], silent=[1, 2])
    assert [client for client, _ in record.rejections] == [8, 1, 2]
    assert all(reason.isprintable() and len(reason) <= 340 for _, reason in record.rejections)


def test_where_nobody_is_left_the_users_function_is_not_asked():
    metrics, record = fit([fit_result(0, {"accuracy": 1.0}, -1)])
    assert metrics == {}
    assert record.skipped
    assert evaluate([evaluation(0, {"accuracy": 1.0}, size=-1)]) == (None, {})


@pytest.mark.parametrize("client_id", [True, 10**400, -3, "7", 1.5], ids=lambda value: f"{value!s:.5}")
def test_what_is_no_id_is_none(client_id):
    _, record = fit([fit_result(5, {"client-id": client_id})], None)
    assert record.clients == [5]


BAD_EVALUATIONS = {
    "a huge loss": {"loss": 1e308},
    "a loss of too many digits": {"loss": 10**5000},
    "NaN": {"loss": math.nan},
    "text": {"loss": "low"},
    "nothing": {"loss": None},
    "a huge size": {"size": 10**400},
    "a size in text": {"size": "9"},
    "no size": {"size": True},
    "a status": {"status": Status(Code.EVALUATE_NOT_IMPLEMENTED, EVIL)},
    "an unknown status": {"status": Status(77, EVIL)},
    "no status": {"status": None},
}


@pytest.mark.parametrize("case", BAD_EVALUATIONS)
def test_evaluations_that_are_not_believable_are_left_out(case, caplog):
    benign = [evaluation(i, {"accuracy": 0.5}, loss=1.0 + i) for i in range(3)]
    loss, metrics = evaluate([*benign, evaluation(9, {"accuracy": 9.0}, **BAD_EVALUATIONS[case])])
    assert loss == 2.0
    assert metrics == {"accuracy": 0.5}


def test_large_losses_of_many_are_averaged_all_the_same():
    loss, _ = evaluate([evaluation(i, {}, loss=3e38, size=10**9) for i in range(50)])
    assert loss == pytest.approx(3e38)
    assert evaluate([evaluation(i, {}, loss=1e308) for i in range(3)]) == (None, {})
