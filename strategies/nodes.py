"""Which nodes there are, and which clients each of them is asked to train."""

import time
from collections.abc import Sequence

import numpy as np
from flwr.common import ConfigRecord, Message
from flwr.server import Grid

from byzflower.uploads.base import CLIENT_IDS
from byzflower.uploads.flower_compat import records_of


def assign_clients(num_clients: int, nodes: Sequence[int]) -> dict[int, list[int]]:
    """Spread clients 0..num_clients-1 over the nodes in even, contiguous cohorts (nodes by ascending id)."""
    parts = np.array_split(np.arange(num_clients), min(num_clients, len(nodes)))
    return {node: part.tolist() for node, part in zip(sorted(nodes), parts, strict=False)}


def wait_for_nodes(grid: Grid, minimum: int, poll_seconds: float = 0.05, timeout: float = 300.0) -> list[int]:
    """Return the connected nodes' ids, ascending, once there are at least `minimum`.

    Flower's engines register nodes while the server already runs: a fraction taken too early is a
    fraction of the few that were there.

    Raises:
        TimeoutError: fewer after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        nodes = sorted(grid.get_node_ids())
        if nodes and len(nodes) >= minimum:
            return nodes
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(nodes)} nodes connected after {timeout:.0f} s, {minimum} are needed")
        time.sleep(poll_seconds)


def asked_clients(message: Message, configrecord_key: str) -> list[int]:
    """Ids of the clients that a message names; none where it leaves that to the node."""
    config = records_of(message.content, ConfigRecord)[configrecord_key]
    asked = config.get(CLIENT_IDS, [])
    return [int(client) for client in asked] if isinstance(asked, list) else []
