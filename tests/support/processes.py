"""Deployments for tests: every process that they start is ended, and that is checked."""

import time
from contextlib import contextmanager
from pathlib import Path

from run_local import LocalDeployment

REPOSITORY = Path(__file__).parents[2]


def sessions():
    """Session ids of all processes that are not zombies."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            found.add(int(fields[3]))
    return found


@contextmanager
def ended_deployment(folder, **options):
    """A running SuperLink; afterwards nothing of it is left."""
    deployment = LocalDeployment(folder, **options)
    try:
        with deployment:
            yield deployment
    finally:
        started = {process.pid for process in [*deployment.nodes, deployment.superlink] if process}
        assert started
        deadline = time.monotonic() + 20  # what was killed takes a moment to be gone
        while started & sessions():
            assert time.monotonic() < deadline
            time.sleep(0.1)
