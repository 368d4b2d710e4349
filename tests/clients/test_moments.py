"""MomentsClient: any torch model under any of the strategies that keep moments, alone and in whole runs."""

import numpy as np
import pytest
import torch
from flwr.common import ConfigRecord

from byzflower.clients import MomentsClient, numpy_client_app
from byzflower.flower.compat import array_record, array_view
from byzflower.server.config.classification import RunConfig
from byzflower.server.engines.inline import InlineGrid
from byzflower.server.engines.simulation import simulate
from byzflower.strategies import AGRFRS, ARFRS, RRFRS, SRFRS, FedAvg

pytestmark = pytest.mark.compat


class Net(torch.nn.Module):
    """An embedding table, batch norm and a linear layer."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(50, 4)
        self.norm = torch.nn.BatchNorm1d(4)
        self.out = torch.nn.Linear(4, 2)

    def forward(self, x):
        return self.out(self.norm(self.table(x)))


def net(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net()


def loss_of(node):
    words = torch.arange(6) + 6 * node
    return lambda model: torch.nn.functional.cross_entropy(model(words), words % 2)


def federate(strategy, compact, nodes=4, rounds=3):
    """Train with Flower's own loop; returns the model's arrays."""

    def client_fn(context):
        node = int(context.node_config["partition-id"])
        return MomentsClient(net(), loss_of(node), 6, compact=compact)

    grid = InlineGrid(numpy_client_app(client_fn), nodes)
    state = net().state_dict()
    arrays = array_record({name: tensor.numpy() for name, tensor in state.items()})
    try:
        for server_round in range(1, rounds + 1):
            messages = strategy.configure_train(server_round, arrays, ConfigRecord(), grid)
            arrays, _ = strategy.aggregate_train(server_round, grid.send_and_receive(messages))
            assert strategy.last_round.rejections == []
    finally:
        grid.close()
    return {name: array_view(array) for name, array in arrays.items()}


@pytest.mark.parametrize("make", [ARFRS, SRFRS, AGRFRS, RRFRS])
def test_a_project_of_ones_own_trains_and_compact_uploads_change_no_bit(make):
    trained = [federate(make(num_byzantine=0), compact) for compact in (False, True)]
    for name, before in net().state_dict().items():
        assert trained[0][name].tobytes() == trained[1][name].tobytes()
        assert trained[0][name].shape == before.shape
    model = net()
    model.load_state_dict({name: torch.tensor(array) for name, array in trained[0].items()})
    assert sum(loss_of(node)(model) for node in range(4)) < sum(loss_of(node)(net()) for node in range(4))
    assert np.array_equal(trained[0]["table.weight"][30:], net().table.weight.detach()[30:])  # nobody's words


def test_one_client_is_torchs_own_optimizer():
    trained = federate(
        SRFRS(lr=0.05, momentum=0.9, filter=None, min_train_nodes=1, min_available_nodes=1),
        False,
        nodes=1,
        rounds=4,
    )
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(4):
        optimizer.zero_grad()
        loss_of(0)(model.train()).backward()
        optimizer.step()
    for name, tensor in model.state_dict().items():
        np.testing.assert_allclose(trained[name], tensor.numpy(), rtol=1e-5, atol=1e-6)


def test_a_strategy_without_moments_is_named():
    strategy = FedAvg()
    with pytest.raises(AssertionError, match="the server keeps no moments"):
        federate(strategy, False, rounds=1)


def test_classifiers_run_with_byzantine_clients_and_other_nodes_give_the_same(tmp_path):
    results = []
    for name, nodes in (("one", {"nodes": 1}), ("each", {"clients_per_node": 1})):
        options = {
            "strategy": "arfrs",
            "attack": "gradientascent",
            "model": "mlp",
            "model_options": "hidden=8",
            "clients": 9,
            "byzantine": 2,
            "batches": 1,
            "batch_size": 64,
            "lr": 0.01,
            "rounds": 6,
            "engine": "inline",
            "max_samples": 600,
        }
        config = RunConfig.make({**options, **nodes, "name": name, "out": str(tmp_path)})
        results.append(simulate(config).result)
    assert results[0] == results[1]
    assert results[0]["quarantined"] == 0
    assert results[0]["accuracy"] > results[0]["history"][0]["accuracy"]
