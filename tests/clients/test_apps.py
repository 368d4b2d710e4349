"""One NumPyClient, every dialect; and clients that misbehave, alone and in cohorts, in whole runs."""

import re
import time

import numpy as np
import pytest
from flwr.common import Context, RecordDict
from flwr.server import LegacyContext, ServerConfig
from flwr.server.client_manager import SimpleClientManager
from flwr.server.server import Server
from flwr.server.strategy import FedAvg as LegacyFedAvg
from flwr.server.workflow import DefaultWorkflow
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg
from small import Target, model

from byzflower.clients import cohort_client_app, numpy_client_app
from byzflower.flower.compat import array_record
from byzflower.server import InlineGrid
from byzflower.strategies import FedAvg, LegacyStrategy, Median, MultiKrum

pytestmark = pytest.mark.compat


def partition(context):
    return int(context.node_config["partition-id"])


def start(strategy, app, nodes, rounds=1, timeout=60.0):
    grid = InlineGrid(app, nodes, num_workers=4)
    try:
        return strategy.start(grid, array_record(model()), num_rounds=rounds, timeout=timeout)
    finally:
        grid.close()


def start_legacy(strategy, app, nodes, rounds=1):
    from flwr.common import ndarrays_to_parameters

    strategy.initial_parameters = ndarrays_to_parameters(list(model().values()))
    grid = InlineGrid(app, nodes)
    context = LegacyContext(
        context=Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={}),
        config=ServerConfig(num_rounds=rounds, round_timeout=60),
        strategy=strategy,
        client_manager=SimpleClientManager(),
    )
    try:
        DefaultWorkflow()(grid, context)
    finally:
        grid.close()
    return context


PLAIN = numpy_client_app(lambda context: Target(float(partition(context))))


@pytest.mark.parametrize(
    "strategy", [FedAvg(min_available_nodes=5), FlowerFedAvg(min_available_nodes=5)], ids=["ours", "Flower's"]
)
def test_a_numpy_client_under_a_message_api_strategy(strategy):
    result = start(strategy, PLAIN, 5)
    np.testing.assert_allclose(result.arrays["w"].numpy(), 2.0, rtol=1e-6)
    assert result.train_metrics_clientapp[1]["train-loss"] == pytest.approx(2.0)
    assert result.evaluate_metrics_clientapp[1]["loss"] == pytest.approx(1.2)


@pytest.mark.parametrize("wrapped", [True, False], ids=["LegacyStrategy(Median)", "Flower's FedAvg"])
def test_a_numpy_client_under_a_legacy_strategy(wrapped):
    everyone = {"min_fit_clients": 5, "min_available_clients": 5, "min_evaluate_clients": 5}
    strategy = LegacyStrategy(Median(), **everyone) if wrapped else LegacyFedAvg(**everyone)
    context = start_legacy(strategy, PLAIN, 5)
    assert context.history.losses_distributed[-1][1] == pytest.approx(1.2)
    if wrapped:
        assert len(strategy.robust.last_round.clients) == 5
        assert strategy.robust.last_round.rejections == []


def test_a_legacy_run_quarantines_too():
    def make(context):
        number = partition(context)
        return Target(float(number), HOSTILE["wrong shape"][0] if number == 4 else None)

    everyone = {"min_fit_clients": 5, "min_available_clients": 5, "fraction_evaluate": 0.0}
    strategy = LegacyStrategy(MultiKrum(num_byzantine=1), **everyone)
    start_legacy(strategy, numpy_client_app(make), 5)
    ((_, reason),) = strategy.robust.last_round.rejections
    assert "shape (3,)" in reason


def boom(arrays):
    raise ValueError("boom")


def unpicklable(arrays):
    raise type("Odd", (Exception,), {})(lambda: 0)


HOSTILE = {
    "raises": (boom, "client raised.*boom"),
    "raises something odd": (unpicklable, "client raised"),
    "returns nothing": (lambda arrays: None, "client raised|no reply"),
    "wrong shape": (lambda arrays: ([np.zeros(3, np.float32)] * 2, 10, {}), r"shape \(3,\)"),
    "one array too few": (lambda arrays: (arrays[:1], 10, {}), "arrays"),
    "one array too many": (lambda arrays: ([*arrays, arrays[0]], 10, {}), "arrays"),
    "float64": (lambda arrays: ([a.astype(np.float64) for a in arrays], 10, {}), "dtype float64"),
    "objects": (lambda arrays: ([a.astype(object) for a in arrays], 10, {}), "dtype object|raised"),
    "text": (lambda arrays: (["w", "b"], 10, {}), "dtype|shape|raised|array"),
    "NaN": (lambda arrays: ([a * np.nan for a in arrays], 10, {}), "NaN or Inf"),
    "Inf": (lambda arrays: ([a + np.inf for a in arrays], 10, {}), "NaN or Inf"),
    "no examples": (lambda arrays: (arrays, 0, {}), "num-examples is 0"),
    "negative examples": (lambda arrays: (arrays, -10, {}), "num-examples is -10"),
    "absurd examples": (lambda arrays: (arrays, 10**12, {}), "num-examples is 10000"),
    "NaN examples": (lambda arrays: (arrays, float("nan"), {}), "num-examples is nan"),
    "examples as text": (lambda arrays: (arrays, "many", {}), "raised|num-examples"),
}


@pytest.mark.parametrize("cohorts", [1, 3], ids=["one client per node", "cohorts"])
@pytest.mark.parametrize("case", HOSTILE)
def test_a_misbehaving_client_never_ends_a_run(case, cohorts):
    answer, reason = HOSTILE[case]
    app = cohort_client_app(
        lambda client, config, context: Target(float(client), answer if client == 2 else None)
    )
    strategy = MultiKrum(num_byzantine=1, num_clients=9, fraction_evaluate=0.0)
    result = start(strategy, app, 9 // cohorts, rounds=2, timeout=20)
    assert strategy.last_round.round == 2
    assert strategy.last_round.clients == [0, 1, 3, 4, 5, 6, 7, 8]
    ((client, said),) = strategy.last_round.rejections
    assert client == 2
    assert re.search(reason, said), said
    assert np.isfinite(result.arrays["w"].numpy()).all()


def test_a_client_that_hangs_costs_its_round_not_the_run():
    def hang(arrays):
        time.sleep(3)
        return arrays, 10, {}

    app = cohort_client_app(lambda client, config, context: Target(1.0, hang if client == 2 else None))
    strategy = Median(num_clients=4, fraction_evaluate=0.0)
    started = time.monotonic()
    start(strategy, app, 4, timeout=0.5)
    assert time.monotonic() - started < 2.5
    assert strategy.last_round.rejections == [(2, "no reply in time")]


def test_metrics_that_flower_cannot_carry_are_dropped():
    def chatty(arrays):
        return (
            arrays,
            10,
            {"note": "text", "flag": True, "blob": b"x", "loss": np.float32(2)},
        )

    app = numpy_client_app(lambda context: Target(1.0, chatty))
    strategy = FedAvg(fraction_evaluate=0.0)
    result = start(strategy, app, 3)
    assert result.train_metrics_clientapp[1]["loss"] == 2.0
    assert "note" not in result.train_metrics_clientapp[1]


def test_a_plain_server_object_still_works_with_legacy_strategies():
    Server(client_manager=SimpleClientManager(), strategy=LegacyStrategy(Median()))


def test_a_client_may_write_to_the_arrays_it_is_given():
    class InPlace(Target):
        def fit(self, parameters, config):
            for p in parameters:
                p += self.value
            return parameters, 10, {}

    app = cohort_client_app(lambda client, config, context: InPlace(float(client)))
    strategy = FedAvg(num_clients=4, fraction_evaluate=0.0)
    result = start(strategy, app, 2)
    assert strategy.last_round.rejections == []
    np.testing.assert_allclose(result.arrays["w"].numpy(), 1.5)


@pytest.mark.parametrize("metrics", [None, {"loss": 1.0, "other": 2.0}])
def test_odd_metrics_cost_one_client_of_a_cohort_at_most(metrics):
    def odd(arrays):
        return arrays, 10, metrics

    class NoScore(Target):
        def evaluate(self, parameters, config):
            raise ValueError("no score")

    def make(client, config, context):
        return NoScore(1.0, odd) if client == 2 else Target(1.0)

    strategy = FedAvg(num_clients=4)
    result = start(strategy, cohort_client_app(make), 1)
    assert set(strategy.last_round.clients) >= {0, 1, 3}
    assert result.evaluate_metrics_clientapp[1]["accuracy"] == 0.5
