"""The engine in one process: whatever a client raises or returns is its own fault, and no other's."""

import json
import logging
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from flwr.clientapp import ClientApp
from flwr.common import Error, Message, RecordDict
from small import Target, model

from byzflower.clients import app as client_apps
from byzflower.clients import cohort_client_app
from byzflower.clients.cohort import evaluate_cohort, fit_cohort
from byzflower.flower.compat import array_record
from byzflower.server import InlineGrid
from byzflower.server.config.tasks import make_config
from byzflower.server.engines.simulation import simulate
from byzflower.strategies import FedAvg, Median
from byzflower.uploads import Weights

pytestmark = pytest.mark.compat

EVIL = "\x1b[2J\nWARNING: forged\u202e<script>\ud800" + "a" * 5000


class NoText(Exception):
    def __str__(self):
        raise SystemExit(4)

    __repr__ = __str__


class NoTraceback(Exception):
    @property
    def __traceback__(self):
        raise RuntimeError("none")


RAISED = {
    "SystemExit": SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt(),
    "GeneratorExit": GeneratorExit(),
    "BaseException": BaseException("base"),
    "no text": NoText(),
    "no traceback": NoTraceback(),
    "evil text": ValueError(EVIL),
    "evil class": type("Evil\x1b\n", (Exception,), {})(EVIL),
}


def raising(error):
    def answer(arrays):
        raise error

    return answer


class Worker(Target):
    """Raises in `fit` and in `evaluate`, if it is told an exception."""

    def __init__(self, value, error):
        super().__init__(value, raising(error) if error else None)
        self.error = error

    def evaluate(self, parameters, config):
        if self.error:
            raise self.error
        return super().evaluate(parameters, config)


def start(strategy, app, nodes, rounds=2):
    grid = InlineGrid(app, nodes, num_workers=2)
    try:
        return strategy.start(grid, array_record(model()), num_rounds=rounds, timeout=30)
    finally:
        grid.close()


def node(number):
    """Id of one of a grid's nodes, counted from 0."""
    grid = InlineGrid(ClientApp(), number + 1)
    grid.close()
    return max(grid.get_node_ids())


def only_the_third_failed(strategy):
    assert strategy.last_round.round == 2
    assert strategy.last_round.clients == [0, 1, 3, 4, 5]
    ((client, reason),) = strategy.last_round.rejections
    assert client == 2
    assert reason.isprintable()
    assert len(reason) <= 300
    json.dumps(reason).encode()
    return reason


@pytest.mark.parametrize("nodes", [6, 2, 1])
@pytest.mark.parametrize("case", RAISED)
def test_whatever_a_client_raises(case, nodes, caplog):
    error = RAISED[case]
    app = cohort_client_app(
        lambda client, config, context: Worker(float(client), error if client == 2 else None)
    )
    strategy = Median(num_clients=6)
    with caplog.at_level(logging.WARNING, "flwr"):
        result = start(strategy, app, nodes)
    assert only_the_third_failed(strategy).startswith("client raised: ")
    assert result.evaluate_metrics_clientapp[2]["accuracy"] == 0.5
    for record in caplog.records:
        text = record.getMessage()
        assert not record.exc_info  # a traceback would show the exception's own text as it is
        assert all(line.isprintable() and not line.startswith("WARNING: f") for line in text.split("\n"))


@pytest.mark.parametrize("case", RAISED)
def test_clients_that_cannot_even_be_made(case):
    def make(client, config, context):
        if client == 2:
            raise RAISED[case]
        return Target(float(client))

    for nodes in (6, 2):
        strategy = Median(num_clients=6)
        start(strategy, cohort_client_app(make), nodes)
        only_the_third_failed(strategy)


def with_metadata(message, **changes):
    reply = Message(RecordDict(), reply_to=message)
    reply.metadata.__dict__.update(changes)
    return reply


def without(message, name):
    reply = Message(RecordDict(), reply_to=message)
    reply.__dict__[name] = None
    return reply


def ruined(message):
    message.metadata.__dict__.clear()
    message.__dict__.clear()
    return RecordDict()


ANSWERS = {
    "a dictionary": lambda message: {"arrays": 1},
    "a number": lambda message: 7,
    "content alone": lambda message: RecordDict(),
    "a class": lambda message: Message,
    "no metadata": lambda message: without(message, "_metadata"),
    "no content": lambda message: without(message, "_content"),
    "content that is none": lambda message: without(message, "_content").__dict__.update(_content=3),
    "from another node": lambda message: with_metadata(message, _src_node_id=node(0)),
    "from no node": lambda message: with_metadata(message, _src_node_id="x"),
    "the instruction itself": lambda message: message,
    "a ruined instruction": ruined,
    "an evil error": lambda message: Message(Error(code=0, reason=EVIL), reply_to=message),
    "an error of no code": lambda message: Message(Error(code=[], reason=NoText()), reply_to=message),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_whatever_a_client_app_returns(case):
    """One that knows nothing of ours; the third node is hostile."""
    benign = cohort_client_app(lambda client, config, context: Target(float(client)))

    def serve(message, context, call_next):
        if int(context.node_config["partition-id"]) == 2:
            return ANSWERS[case](message)
        return benign(message, context)

    strategy = Median(fraction_evaluate=0.0, min_available_nodes=6)
    start(strategy, ClientApp(client_fn=lambda context: None, mods=[serve]), 6)
    assert strategy.last_round.round == 2
    assert strategy.last_round.clients == [node(i) for i in (0, 1, 3, 4, 5)]
    assert {client for client, _ in strategy.last_round.rejections} == {node(2)}
    assert all(reason.isprintable() for _, reason in strategy.last_round.rejections)


def test_nobody_answers_for_another():
    """A reply says itself from whom it is; the engine knows better."""

    def serve(message, context, call_next):
        reply = benign(message, context)
        message.metadata.__dict__["_dst_node_id"] = reply.metadata.__dict__["_src_node_id"] = node(0)
        return reply

    benign = cohort_client_app(lambda client, config, context: Target(float(client)))
    strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=4)
    start(strategy, ClientApp(client_fn=lambda context: None, mods=[serve]), 4)
    assert strategy.last_round.clients == [node(i) for i in range(4)]


def test_a_recommender_that_raises_costs_its_own_node_alone(monkeypatch, tmp_path):
    """Users of a node work all at once: what one of them raises is the fault of the node."""
    answer = client_apps.answer_users

    def raises(users, *others):
        if 0 in users:
            raise SystemExit(EVIL)
        return answer(users, *others)

    monkeypatch.setattr(client_apps, "answer_users", raises)
    options = {"task": "recommendation", "dataset": "synthetic-small", "rounds": 2, "eval_every": 1}
    options |= {"engine": "inline", "strategy": "median", "nodes": 3, "candidates": 20, "byzantine": 0}
    config = make_config({**options, "out": str(tmp_path)})
    history = simulate(config).result["history"]
    lost = range(-(-config.clients // 3))
    for record in history[1:]:
        assert {own["client"] for own in record["quarantined"]} == {*lost}
        assert record["clients"] == config.clients - len(lost)
        assert all(
            own["reason"].startswith(r"client raised: SystemExit: \x1b") for own in record["quarantined"]
        )
        assert record["HR@10"] is not None


CTRL_C = """
import time
from byzflower.clients import cohort_client_app
from byzflower.server import InlineGrid
from byzflower.strategies import Median
from byzflower.flower.compat import array_record
from small import Target, model

def slow(arrays):
    print("training", flush=True)
    time.sleep(1)
    return arrays, 10, {}

app = cohort_client_app(lambda client, config, context: Target(1.0, slow))
grid = InlineGrid(app, 2)
try:
    Median(num_clients=4).start(grid, array_record(model()), num_rounds=1000, timeout=60)
finally:
    grid.close()
"""


def test_the_users_ctrl_c_still_ends_the_run(tmp_path):
    support = str(Path(__file__).parents[1] / "support")
    process = subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path.append({support!r})\n" + CTRL_C],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    assert process.stdout.readline() == "training\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode != 0
    assert error.rstrip().endswith("KeyboardInterrupt")


def test_a_cohort_in_the_main_thread_passes_the_users_ctrl_c_on():
    """On other engines a client may work in the main thread of its process."""
    names, arrays = list(model()), list(model().values())

    def make(client):
        return Worker(1.0, KeyboardInterrupt() if client == 1 else SystemExit(2))

    with pytest.raises(KeyboardInterrupt):
        fit_cohort([0, 1, 2], make, Weights(), names, arrays, {})
    with pytest.raises(KeyboardInterrupt):
        evaluate_cohort([0, 1, 2], make, arrays, {})


class NotAnArray:
    def __array__(self, *args, **options):
        raise RuntimeError(EVIL)


def test_arrays_that_fail_when_they_are_copied_cost_one_client():
    def odd(arrays):
        return [NotAnArray() for _ in arrays], 10, {}

    app = cohort_client_app(lambda client, config, context: Target(1.0, odd if client == 2 else None))
    strategy = Median(num_clients=6, fraction_evaluate=0.0)
    start(strategy, app, 2)
    only_the_third_failed(strategy)
