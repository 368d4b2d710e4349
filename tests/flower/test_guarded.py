"""A grid of real nodes, played by hand: whatever one of them does, the others are heard."""

import threading

import numpy as np
import pytest
from flwr.common import Message, RecordDict
from flwr.common.constant import ErrorCode

from byzflower.flower.compat import array_record, set_message_id, set_message_origin
from byzflower.flower.guarded import GuardedGrid, guarded
from byzflower.strategies import Median
from flower import FixedGrid, plain_reply

pytestmark = pytest.mark.compat

MODEL = {"w": np.zeros(3, np.float32)}
SUPERLINK = 1


class GrpcGrid(FixedGrid):
    """Answers as a SuperLink would; `behaviours` maps node ids to what is done instead."""

    def __init__(self, nodes, behaviours=None, rounds_late=0):
        super().__init__(nodes)
        self.behaviours = behaviours or {}
        self.rounds_late = rounds_late
        self.asked = {}
        self.over = threading.Event()

    def push_messages(self, messages):
        ids = []
        for message in messages:
            node = message.metadata.dst_node_id
            if self.behaviours.get(node) == "cannot be sent to":
                raise KeyError("object was deleted")
            set_message_id(message, f"message-{node}")
            self.asked[f"message-{node}"] = [node, message, 0]
            ids.append(None if self.behaviours.get(node) == "refused" else f"message-{node}")
        return ids

    def pull_messages(self, message_ids):
        replies = []
        for message_id in message_ids:
            node, message, looks = self.asked[message_id]
            self.asked[message_id][2] += 1
            if looks < self.rounds_late:
                continue
            behaviour = self.behaviours.get(node)
            if behaviour == "silent":
                continue
            if behaviour == "unreadable":
                raise ValueError("not JSON")
            if behaviour == "stuck":
                self.over.wait(20)
                continue
            reply = plain_reply(node, {"w": np.ones(3, np.float32)}, 10, {"client-id": node})
            if behaviour == "forged":
                set_message_origin(reply, 1, self.nodes[0])
            if behaviour == "gone":
                reply = self.unavailable(message)
            reply.metadata.__dict__["_reply_to_message_id"] = message_id
            replies.append(reply)
        return replies

    @staticmethod
    def unavailable(message):
        """What the SuperLink says of a node that is gone: an error of its own."""
        from flwr.common import Error

        reply = Message(Error(code=ErrorCode.NODE_UNAVAILABLE, reason="no heartbeat"), reply_to=message)
        set_message_origin(reply, 1, SUPERLINK)
        return reply


def run(behaviours, nodes=(11, 12, 13, 14), timeout=3.0, rounds_late=0):
    grid = GrpcGrid(nodes, behaviours, rounds_late)
    strategy = Median(fraction_evaluate=0.0)
    try:
        result = strategy.start(grid, array_record(MODEL), num_rounds=1, timeout=timeout)
        return strategy.last_round, result
    finally:
        grid.over.set()


@pytest.mark.parametrize("rounds_late", [0, 3])
def test_everybody_is_heard(rounds_late):
    last, result = run({}, timeout=None, rounds_late=rounds_late)  # so it does not wait for a timeout
    assert last.clients == [11, 12, 13, 14]
    assert last.rejections == []
    np.testing.assert_array_equal(result.arrays["w"].numpy(), 1)


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("unreadable", "no usable reply: ValueError in Flower's transport: not JSON"),
        ("cannot be sent to", "no usable reply: KeyError in Flower's transport"),
        ("gone", "no reply: no heartbeat"),
        ("silent", "no reply in time"),
        ("stuck", "no reply in time"),
        ("refused", "no reply in time"),
    ],
)
def test_one_bad_node_is_named_and_the_others_are_heard(behaviour, reason):
    last, result = run({12: behaviour})
    assert last.clients == [11, 13, 14]
    ((client, said),) = last.rejections
    assert client == 12
    assert said.startswith(reason)
    np.testing.assert_array_equal(result.arrays["w"].numpy(), 1)


def test_many_that_hang_do_not_keep_the_others_from_being_heard():
    last, _ = run({11: "stuck", 12: "stuck"}, timeout=9.0)
    assert last.clients == [13, 14]


def test_a_forged_sender_does_not_help():
    """Node 12 writes node 11's id into its reply and takes the place of nobody."""
    last, _ = run({12: "forged"})
    assert last.clients == [11, 12, 13, 14]
    assert last.rejections == []


def test_if_nothing_can_be_sent_the_run_ends_with_the_reason():
    with pytest.raises(ConnectionError, match="nothing could be sent to any node: KeyError"):
        run(dict.fromkeys((11, 12, 13, 14), "cannot be sent to"))


def test_no_messages_no_replies():
    grid = GuardedGrid(GrpcGrid([1]))
    assert grid.send_and_receive([], timeout=1) == []


def test_grids_in_this_process_are_left_alone():
    grid = FixedGrid([1])
    assert guarded(grid) is grid
    assert isinstance(guarded(GrpcGrid([1])), GuardedGrid)


def test_everything_else_is_the_wrapped_grids():
    inner = GrpcGrid([5, 6])
    inner.set_run = lambda run_id: setattr(inner, "given", run_id)
    grid = GuardedGrid(inner)
    grid.set_run(7)
    assert inner.given == 7
    assert grid.run is None
    assert grid.get_node_ids() == [5, 6]
    assert grid.create_message(RecordDict(), "train", 5, "1") is None
