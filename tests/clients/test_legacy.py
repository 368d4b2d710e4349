"""Clients of Flower's legacy strategies: what Flower's own wrapper answers, on any number of threads."""

import gc
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from flwr.client import NumPyClient
from flwr.common import Code, EvaluateIns, FitIns, GetParametersIns, ndarrays_to_parameters
from small import Target, model

from byzflower.clients.legacy import LegacyClient

pytestmark = pytest.mark.compat

PARAMETERS = ndarrays_to_parameters(list(model().values()))


def answers(client):
    return (
        client.fit(FitIns(PARAMETERS, {})),
        client.evaluate(EvaluateIns(PARAMETERS, {})),
        client.get_parameters(GetParametersIns({})),
    )


@pytest.mark.parametrize("client", [Target(3.0), NumPyClient()], ids=["trains", "does nothing"])
def test_answers_as_flowers_own_wrapper_does(client):
    ours, flowers = answers(LegacyClient(client)), answers(client.to_client())
    assert [a.status.code for a in ours] == [a.status.code for a in flowers]
    if ours[0].status.code == Code.OK:
        assert ours[:2] == flowers[:2]


class Cycle:
    """Garbage whose collection lets another thread in, also in the middle of a parse."""

    def __init__(self):
        self.me = self

    def __del__(self):
        time.sleep(0)


def test_no_client_is_lost_where_many_threads_train_at_once():
    client = LegacyClient(Target(3.0))

    def train(_):
        Cycle()
        return client.fit(FitIns(PARAMETERS, {})).num_examples

    before = gc.get_threshold()
    gc.set_threshold(5, 2, 2)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(train, range(2000))) == {10}
    finally:
        gc.set_threshold(*before)
