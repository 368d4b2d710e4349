"""The adversary around strategies of the older API does what it does around those of the newer."""

import numpy as np
import pytest
from flwr.common import Code, FitRes, Parameters, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server.strategy import FedAvg as LegacyFedAvg
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg

from byzflower.attacks import ALIE, IPM
from byzflower.server import Adversary, LegacyAdversary
from byzflower.strategies import LegacyStrategy, Median, MultiKrum
from flower import begin_round, plain_reply

pytestmark = pytest.mark.compat

N, F = 7, 2
RANDOM = np.random.default_rng(3)
GLOBAL = [RANDOM.normal(size=(2, 3)).astype(np.float32), RANDOM.normal(size=3).astype(np.float32)]
UPLOADS = [[g + RANDOM.normal(size=g.shape).astype(np.float32) / 10 for g in GLOBAL] for _ in range(N)]


class Proxy:
    def __init__(self, cid):
        self.cid = str(cid)


class Manager:
    """Knows n clients and samples them all."""

    def num_available(self):
        return N

    def wait_for(self, num_clients, timeout=0):
        return True

    def sample(self, num_clients, min_num_clients=None, criterion=None):
        return [Proxy(100 + i) for i in range(N)]


def result(arrays, number, metrics=None, parameters=None):
    parameters = parameters or ndarrays_to_parameters(arrays)
    return Proxy(100 + number), FitRes(Status(Code.OK, ""), parameters, 10, metrics or {})


def aggregate(strategy, results, server_round=1):
    strategy.configure_fit(server_round, ndarrays_to_parameters(GLOBAL), Manager())
    parameters, _ = strategy.aggregate_fit(server_round, results, [])
    return parameters_to_ndarrays(parameters)


def honest(metrics=lambda i: {}):
    return [result(arrays, i, metrics(i)) for i, arrays in enumerate(UPLOADS)]


@pytest.mark.parametrize("attack", [IPM(eps=10.0), ALIE(z=1.5)], ids=["ipm", "alie"])
@pytest.mark.parametrize("named", [False, True], ids=["by cid", "by client-id"])
def test_the_same_attack_as_on_the_message_api(attack, named):
    """Client ids, where clients name them, run against the order of their cids."""

    def number(i):
        return N - 1 - i if named else i

    adversary = Adversary(FlowerFedAvg(), attack, num_byzantine=F)
    nodes = [100 + i for i in range(N)]
    begin_round(adversary, dict(zip("01", GLOBAL, strict=True)), nodes)
    replies = [
        plain_reply(node, dict(zip("01", arrays, strict=True)), 10, {"client-id": number(i)} if named else {})
        for i, (node, arrays) in enumerate(zip(nodes, UPLOADS, strict=True))
    ]
    expected, _ = adversary.aggregate_train(1, replies)
    strategy = LegacyAdversary(LegacyFedAvg(inplace=False), attack, num_byzantine=F)
    got = aggregate(strategy, honest(lambda i: {"client-id": number(i)} if named else {}))
    plain = aggregate(LegacyFedAvg(inplace=False), honest())
    for ours, theirs, unattacked in zip(expected.to_numpy_ndarrays(), got, plain, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-6)
        assert not np.allclose(theirs, unattacked, atol=1e-3)


def test_a_defence_inside_the_adversary_sees_the_attack():
    strategy = LegacyAdversary(LegacyStrategy(MultiKrum(num_byzantine=F)), IPM(eps=10.0), num_byzantine=F)
    got = aggregate(strategy, honest())
    assert strategy.strategy.robust.last_round.selected == [100 + i for i in range(F, N)]
    benign = [np.mean([u[k] for u in UPLOADS[F:]], axis=0) for k in range(2)]
    for array, mean in zip(got, benign, strict=True):
        np.testing.assert_allclose(array, mean, rtol=1e-4, atol=1e-5)


def test_outside_its_window_nothing_changes():
    attack = IPM(eps=10.0, start_round=2)
    strategy = LegacyAdversary(LegacyFedAvg(inplace=False), attack, num_byzantine=F)
    first, second = (aggregate(strategy, honest(), server_round) for server_round in (1, 2))
    for got, plain in zip(first, aggregate(LegacyFedAvg(inplace=False), honest()), strict=True):
        np.testing.assert_array_equal(got, plain)
    assert not np.allclose(first[0], second[0], atol=1e-3)


@pytest.mark.parametrize(
    "parameters",
    [
        Parameters(tensors=[b"garbage"], tensor_type="numpy.ndarray"),
        Parameters(tensors=[], tensor_type="pickle"),
        ndarrays_to_parameters([np.zeros((9, 9))]),
        ndarrays_to_parameters([g * np.nan for g in GLOBAL]),
    ],
    ids=["garbage", "another type", "another shape", "NaN"],
)
def test_what_cannot_be_read_is_left_to_the_strategy(parameters):
    strategy = LegacyAdversary(LegacyStrategy(Median()), IPM(eps=10.0), byzantine=[100, 101])
    got = aggregate(strategy, [*honest()[:-1], result(None, N - 1, parameters=parameters)])
    ((client, _reason),) = strategy.strategy.robust.last_round.rejections
    assert client == 100 + N - 1
    assert all(np.isfinite(array).all() for array in got)


@pytest.mark.parametrize(
    "changes",
    [{"num_examples": "9"}, {"num_examples": 10**400}, {"metrics": None}, {"parameters": None}],
    ids=["a size in text", "a huge size", "no metrics", "no parameters"],
)
def test_what_a_result_says_besides_its_arrays_is_not_trusted_either(changes):
    strategy = LegacyAdversary(LegacyStrategy(Median()), IPM(eps=10.0), byzantine=[100, 101])
    *others, (proxy, odd) = honest()
    for name, value in changes.items():
        setattr(odd, name, value)
    got = aggregate(strategy, [*others, (proxy, odd)])
    ((client, _reason),) = strategy.strategy.robust.last_round.rejections
    assert client == 100 + N - 1
    assert all(np.isfinite(array).all() for array in got)


def test_everything_else_is_the_wrapped_strategys():
    initial = ndarrays_to_parameters(GLOBAL)
    inner = LegacyFedAvg(initial_parameters=initial, evaluate_fn=lambda r, p, c: (float(r), {"x": 1.0}))
    strategy = LegacyAdversary(inner, IPM(), num_byzantine=1)
    assert strategy.initialize_parameters(Manager()) is initial
    assert strategy.evaluate(3, ndarrays_to_parameters(GLOBAL)) == (3.0, {"x": 1.0})
    assert strategy.aggregate_evaluate(1, [], []) == (None, {})
    asked = strategy.configure_evaluate(1, ndarrays_to_parameters(GLOBAL), Manager())
    assert len(asked) == N
