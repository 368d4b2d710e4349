"""Waiting for nodes, and sampling clients."""

import time
from collections.abc import Sequence

import numpy as np
from flwr.server import Grid


def wait_for_nodes(grid: Grid, minimum: int, poll_seconds: float = 0.05, timeout: float = 300.0) -> list[int]:
    """Return the connected nodes' ids, ascending, once there are at least `minimum`.

    Flower's engines register nodes while the server already runs: a fraction taken too early would be a
    fraction of the few that are connected.

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


def sample_clients(
    num_clients: int, strata: Sequence[Sequence[int]], fraction: float, random: np.random.Generator
) -> set[int]:
    """Draw logical clients, of every stratum as many as its size asks for."""
    count = max(1, int(num_clients * fraction))
    drawn: set[int] = set()
    for group in strata or [list(range(num_clients))]:
        share = round(count * len(group) / num_clients)
        drawn.update(group[i] for i in random.choice(len(group), share, replace=False).tolist())
    return drawn
