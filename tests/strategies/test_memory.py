"""What a round needs in memory: the uploads as they came, one matrix, and a little for the rule."""

from pathlib import Path

import numpy as np
import pytest

from byzflower.strategies import FedAvg, Krum, Median, MultiKrum, TrimmedMean
from flower import begin_round, plain_reply

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")

N, THIRD = 60, 300_000


def resident(field):
    (line,) = (own for own in Path("/proc/self/status").read_text().splitlines() if own.startswith(field))
    return int(line.split()[1]) * 1024


def arrays(value):
    return {name: np.full(THIRD, value, np.float32) for name in "abc"}


@pytest.mark.parametrize("hostile", [False, True], ids=["honest", "one NaN"])
@pytest.mark.parametrize(
    "make",
    [
        FedAvg,
        Median,
        lambda: TrimmedMean(num_byzantine=5),
        lambda: Krum(num_byzantine=5),
        lambda: MultiKrum(num_byzantine=5),
    ],
    ids=["fedavg", "median", "trimmedmean", "krum", "multikrum"],
)
def test_a_round_needs_no_more_than_it_says(make, hostile):
    nodes = list(range(1, N + 1))
    strategy = make()
    begin_round(strategy, arrays(0.0), nodes)
    replies = [
        plain_reply(n, arrays(np.nan if hostile and n == 7 else n), 10, {"client-id": n}) for n in nodes
    ]
    uploads = sum(len(array.data) for reply in replies for array in reply.content["arrays"].values())
    small = make()
    begin_round(small, {"w": np.zeros(3, np.float32)}, nodes)  # what is set up once is not counted
    small.aggregate_train(1, [plain_reply(n, {"w": np.ones(3, np.float32)}, 10) for n in nodes])
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    result, _ = strategy.aggregate_train(1, replies)
    grown = resident("VmHWM") - before
    assert result is not None
    assert len(strategy.last_round.clients) == N - hostile
    assert grown + uploads <= strategy.round_bytes(N)
