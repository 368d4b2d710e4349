"""Hand-made Flower messages and small strategies' inputs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flwr.common import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.server import Grid

from byzflower.flower.compat import enter_local_run, set_message_id

enter_local_run(1)


class FixedGrid(Grid):
    """A Grid that only knows its node ids."""

    def __init__(self, nodes: Sequence[int]):
        self.nodes = list(nodes)

    def get_node_ids(self):
        return self.nodes

    def set_run(self, run): ...

    @property
    def run(self): ...

    def create_message(self, *args, **kwargs): ...

    def push_messages(self, messages): ...

    def pull_messages(self, message_ids): ...

    def send_and_receive(self, messages, *, timeout=None): ...


def reply_from(node: int, content: RecordDict) -> Message:
    """A reply of a node, as a strategy gets it."""
    instruction = Message(RecordDict(), dst_node_id=node, message_type="train")
    set_message_id(instruction, f"to-{node}")
    return Message(content, reply_to=instruction)


def plain_reply(
    node: int,
    arrays: Mapping[str, Any],
    num_examples: Any = 10,
    metrics: Mapping[str, Any] | None = None,
) -> Message:
    """What an ordinary Flower client sends: its model under "arrays", its size under "num-examples"."""
    record = ArrayRecord({k: v if isinstance(v, Array) else Array(np.asarray(v)) for k, v in arrays.items()})
    numbers = {} if num_examples is None else {"num-examples": num_examples}
    return reply_from(
        node, RecordDict({"arrays": record, "metrics": MetricRecord({**numbers, **(metrics or {})})})
    )


def begin_round(strategy: Any, model: Mapping[str, np.ndarray], nodes: Sequence[int], server_round: int = 1):
    """Let a strategy send a model to nodes; returns the messages."""
    arrays = ArrayRecord({k: Array(v) for k, v in model.items()})
    return list(strategy.configure_train(server_round, arrays, ConfigRecord(), FixedGrid(nodes)))
