"""Which nodes there are."""

import time

from flwr.server import Grid


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
