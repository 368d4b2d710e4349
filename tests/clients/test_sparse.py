"""TopKClient around any NumPyClient, in both of Flower's dialects, and in whole runs."""

import json

import numpy as np
import pytest
from flwr.client import NumPyClient
from flwr.common import Code, FitRes, RecordDict, Status, ndarrays_to_parameters
from flwr.server.client_manager import SimpleClientManager
from small import Target, model

from byzflower.clients import TopKClient, cohort_client_app
from byzflower.flower.compat import array_record
from byzflower.server import InlineGrid
from byzflower.server.config.classification import RunConfig
from byzflower.server.engines.simulation import simulate
from byzflower.strategies import LegacyStrategy, Median, SafeSparse
from byzflower.uploads import Layout, TopK, upload_kind

pytestmark = pytest.mark.compat

LAYOUT = Layout.of(model())


class Steps(NumPyClient):
    """Adds the same update every round."""

    def __init__(self, update):
        self.update = np.asarray(update, np.float32)

    def fit(self, parameters, config):
        return [p + u for p, u in zip(parameters, np.split(self.update, [8]), strict=True)], 3, {}


class Flat(Steps):
    """The same for the small model's shapes."""

    def fit(self, parameters, config):
        row = LAYOUT.row(parameters) + self.update
        return LAYOUT.arrays(row), 3, {}


def fit(client, arrays=None):
    """What a client sends of what it made of these arrays, in packs of four."""
    kind = TopK(pack_size=4)
    sent, size, _ = client.fit(list((arrays or model()).values()), kind.told())
    upload = kind.decode(kind.named(sent, LAYOUT), LAYOUT, [0], np.array([size]), [{}], cohort=False)
    return upload.model(0)


def test_keeps_what_the_update_or_the_parameters_say():
    update = [0, 0, 0, 0, 1, -3, 0, 0, 2, 0, 0, 0]
    assert fit(TopKClient(Flat(update), 1 / 3)).mask.tolist() == [False, True, False]
    assert fit(TopKClient(Flat(update), 1 / 3)).values.tolist() == [1, -3, 0, 0]

    class Heavy(Flat):
        def fit(self, parameters, config):
            assert upload_kind(config).learned == "model"
            row = LAYOUT.row(parameters) + self.update
            row[8:] += 100
            return LAYOUT.arrays(row), 3, {}

    big = {k: v + (100 if k == "b" else 0) for k, v in model().items()}
    client = TopKClient(Flat(update), 1 / 3, importance="parameter")
    assert fit(client, big).mask.tolist() == [False, False, True]
    assert fit(TopKClient(Heavy(update), 1 / 3)).mask.tolist() == [False, False, True]


@pytest.mark.parametrize("half", [False, True])
def test_what_is_not_sent_is_not_lost(half):
    update = np.linspace(0.1, 1.2, 12)
    state = RecordDict()
    total = np.zeros(12)
    for _ in range(30):  # the global model stays at zero, so a client's parameters are its updates
        sent = fit(TopKClient(Flat(update), 1 / 3, residual=True, half=half, state=state))
        total[np.repeat(sent.mask, 4)] += sent.values
    waiting = np.array(next(iter(state["topk-residual"].values())).numpy())
    np.testing.assert_allclose(total + waiting, 30 * update, rtol=1e-4)
    assert (total > 0).all()  # without the residual, only the last pack would ever be sent


def test_clients_of_a_node_have_residuals_of_their_own():
    state = RecordDict()
    for client in (0, 1):
        fit(TopKClient(Flat(np.full(12, client + 1.0)), 1 / 3, residual=True, state=state, client_id=client))
    kept = {key: array.numpy().tolist() for key, array in state["topk-residual"].items()}
    assert kept == {"0": [0.0] * 4 + [1.0] * 8, "1": [0.0] * 4 + [2.0] * 8}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 0}, r"ratio must be in \(0, 1\], got 0"),
        ({"ratio": 1.1}, r"ratio must be in \(0, 1\], got 1.1"),
        ({"importance": "size"}, "importance must be update or parameter, got 'size'"),
        ({"residual": True}, "residual=True needs state"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        TopKClient(Target(1.0), **options)


@pytest.mark.parametrize("nodes", [1, 3])
def test_in_an_existing_project(nodes):
    app = cohort_client_app(
        lambda client, config, context: TopKClient(Target(float(client + 1)), 1.0, state=context.state)
    )
    grid = InlineGrid(app, nodes)
    strategy = Median(upload="topk", pack_size=5, num_clients=3, fraction_evaluate=0.0)
    result = strategy.start(grid, array_record(model()), num_rounds=1)
    grid.close()
    assert result.arrays["w"].numpy()[0, 0] == 2
    assert strategy.last_round.clients == [0, 1, 2]
    assert strategy.last_round.info["bytes-to-dense"] == pytest.approx((12 * 4 + 1) / 48)


def test_what_other_clients_learned_is_made_sparse_by_their_node_as_the_server_says():
    grid = InlineGrid(cohort_client_app(lambda client, config, context: Target(1.0)), 1)
    strategy = Median(upload=TopK(1 / 3, pack_size=4), num_clients=2, fraction_evaluate=0.0)
    result = strategy.start(grid, array_record(model()), num_rounds=1)
    grid.close()
    assert strategy.last_round.rejections == []
    assert strategy.last_round.masks.tolist() == [[True, False, False]] * 2
    assert LAYOUT.row([array.numpy() for array in result.arrays.values()]).tolist() == [1] * 4 + [0] * 8


def test_in_a_project_on_the_older_api():
    strategy = LegacyStrategy(SafeSparse(pack_size=4, magnitude_guard=None))

    class Proxy:
        def __init__(self, cid):
            self.cid = cid

    manager = SimpleClientManager()
    for cid in "1234":
        manager.register(Proxy(cid))
    strategy.configure_fit(1, ndarrays_to_parameters(list(model().values())), manager)
    results = []
    for cid in "123":
        client = TopKClient(Flat(np.full(12, float(cid))), 1 / 3)
        arrays, size, metrics = client.fit(list(model().values()), strategy.robust.upload.told())
        parameters = ndarrays_to_parameters(arrays)
        results.append((Proxy(cid), FitRes(Status(Code.OK, ""), parameters, size, metrics)))
    results.append((Proxy("4"), FitRes(Status(Code.OK, ""), ndarrays_to_parameters([]), 1, {})))
    strategy.aggregate_fit(1, results, [])
    assert strategy.robust.last_round.clients == [1, 2, 3]
    ((client, reason),) = strategy.robust.last_round.rejections
    assert (client, reason) == (4, "a top-k upload has the arrays mask, values, got []")


SMALL = {
    "rounds": 3,
    "clients": 8,
    "byzantine": 3,
    "model": "mlp",
    "engine": "inline",
    "batches": 2,
    "upload": "topk",
    "strategy": "safesparse",
    "attack_options": "start_round=2",
}


@pytest.mark.parametrize("options", ["residual=true,half=true", "importance=parameter,ratio=0.1"])
def test_runs_give_the_same_whatever_the_number_of_nodes(options, tmp_path):
    results = [
        simulate(
            RunConfig.make(
                {**SMALL, "upload_options": options, "nodes": nodes, "out": str(tmp_path / str(nodes))}
            )
        ).result
        for nodes in (1, 3)
    ]
    assert json.dumps(results[0], sort_keys=True) == json.dumps(results[1], sort_keys=True)


def test_an_interrupted_run_remembers_residuals(tmp_path):
    import threading

    from byzflower.clients.app import app
    from byzflower.server.federation import federation

    config = RunConfig.make(
        {**SMALL, "upload_options": "residual=true,ratio=0.2", "out": str(tmp_path / "a")}
    )
    whole = simulate(config).result
    config = RunConfig.make(
        {**SMALL, "upload_options": "residual=true,ratio=0.2", "out": str(tmp_path / "b")}
    )
    stop = threading.Event()
    grid = InlineGrid(app, 2)
    outcome = federation(config, 2).run(
        grid, lambda record: stop.set() if record["round"] == 1 else None, stop
    )
    grid.close()
    assert outcome.interrupted
    assert simulate(config).result == whole


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"upload_options": "ratio=2"}, r"upload-options: ratio must be in \(0, 1\]"),
        ({"upload_options": "rate=2"}, "unknown parameter 'rate'; did you mean 'ratio'"),
        ({"upload": "weights", "upload_options": "ratio=0.5"}, "Weights has no parameters, got ratio"),
        ({"mask_attack": "indexpoisonin"}, "did you mean 'indexpoisoning'"),
        ({"mask_attack": "maskmimic", "upload": "weights"}, "mask-attack needs upload=topk"),
        (
            {"mask_attack": "indexpoisoning", "mask_attack_options": "target=tail"},
            "mask-attack-options: target must be rare, head, or packs",
        ),
        ({"strategy": "krum", "densify": "contributors"}, "densify must be zero: Krum is neither"),
    ],
)
def test_mistakes_in_a_configuration_are_named(options, message):
    from byzflower.server.config.checks import ConfigError

    with pytest.raises(ConfigError, match=message):
        RunConfig.make({**SMALL, **options})
