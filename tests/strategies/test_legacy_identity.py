"""Clients of Flower's older API are told apart as those of the newer one are."""

import numpy as np
import pytest
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters
from flwr.server.client_manager import SimpleClientManager

from byzflower.strategies import LegacyStrategy, Median

pytestmark = pytest.mark.compat

MODEL = [np.zeros(3, np.float32)]


class Proxy:
    def __init__(self, cid):
        self.cid = str(cid)


def result(cid, value=1.0, **metrics):
    parameters = ndarrays_to_parameters([np.full(3, value, np.float32)])
    own = {key.replace("_", "-"): value for key, value in metrics.items()}
    return Proxy(cid), FitRes(Status(Code.OK, ""), parameters, 10, own)


def rounds(strategy, *answers):
    """Let clients 101 to 104 be asked once for each of the answers; returns the records."""
    manager = SimpleClientManager()
    for cid in (101, 102, 103, 104):
        manager.register(Proxy(cid))
    records = []
    for server_round, (results, failures) in enumerate(answers, 1):
        strategy.configure_fit(server_round, ndarrays_to_parameters(MODEL), manager)
        strategy.aggregate_fit(server_round, results, failures)
        records.append(strategy.robust.last_round)
    return records


def test_who_claims_an_id_first_takes_nobodys_upload():
    strategy = LegacyStrategy(Median(), min_fit_clients=4, min_available_clients=4)
    liar = result(101, np.nan, client_id=3)
    benign = [result(102, client_id=2), result(103, client_id=3), result(104, client_id=4)]
    first, second, third = rounds(
        strategy, ([liar, *benign], []), (benign, []), ([*benign, result(101, client_id=3)], [])
    )
    assert first.clients == [2, 4, 103]
    assert first.rejections == [(101, "NaN or Inf in the upload")]
    assert second.clients == [2, 3, 4]
    assert third.clients == [2, 3, 4, 101]
    assert third.ignored == [(101, "claims to be client 3, which is node 103; known by its node id")]


def test_an_exception_is_of_those_who_have_no_result():
    strategy = LegacyStrategy(Median(), min_fit_clients=4, min_available_clients=4)
    (record,) = rounds(strategy, ([result(101), result(102)], [ValueError("boom"), result(103)]))
    assert record.clients == [101, 102]
    assert record.rejections == [
        (103, "client failed: "),
        (104, "no result: client raised: ValueError: boom"),
    ]


def test_metrics_are_those_of_the_accepted():
    seen = []
    strategy = LegacyStrategy(
        Median(),
        min_fit_clients=4,
        min_available_clients=4,
        fit_metrics_aggregation_fn=lambda metrics: seen.extend(metrics) or {},
    )
    rivals = [result(101, client_id=7, x=1.0), result(102, client_id=7, x=2.0)]
    rounds(
        strategy, ([*rivals, result(103, np.nan, client_id=3, x=3.0), result(104, client_id=4, x=4.0)], [])
    )
    assert sorted(metrics["x"] for _, metrics in seen) == [1.0, 2.0, 4.0]
