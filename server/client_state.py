"""The state of simulated clients (momentum, residuals, embeddings), fetched for checkpoints and sent back."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from flwr.common import ArrayRecord, Message, MessageType, RecordDict
from flwr.server import Grid
from numpy.typing import NDArray

from byzflower.flower.compat import array_record, array_view, records_of
from byzflower.uploads.roster import assign_clients

# Record name -> client id -> array.
ClientState = dict[str, dict[str, NDArray[Any]]]


def fetch_client_state(grid: Grid, nodes: Sequence[int], timeout: float) -> ClientState:
    """Ask every node for its clients' state.

    Raises:
        RuntimeError: a node did not answer within `timeout` seconds, or with an error.
    """
    state: ClientState = {}
    for reply in _query(grid, {node: RecordDict() for node in nodes}, timeout):
        for name, record in records_of(reply.content, ArrayRecord).items():
            own = {key: np.array(array_view(array)) for key, array in record.items()}
            state.setdefault(name, {}).update(own)
    return state


def send_client_state(
    grid: Grid, nodes: Sequence[int], state: ClientState, num_clients: int, timeout: float
) -> None:
    """Send each node the state of the clients that it will host, of `num_clients` in all.

    Raises:
        RuntimeError: a node did not answer within `timeout` seconds, or with an error.
    """
    contents = {}
    for node, clients in assign_clients(num_clients, nodes).items():
        own = {
            name: array_record({str(c): arrays[str(c)] for c in clients if str(c) in arrays})
            for name, arrays in state.items()
        }
        contents[node] = RecordDict({**own})
    _query(grid, contents, timeout)


def _query(grid: Grid, contents: dict[int, RecordDict], timeout: float) -> list[Message]:
    messages = [Message(content, node, MessageType.QUERY) for node, content in contents.items()]
    replies = list(grid.send_and_receive(messages, timeout=timeout))
    if len(replies) < len(messages) or any(reply.has_error() for reply in replies):
        raise RuntimeError("a node did not exchange its clients' state")
    return replies
