"""What an engine costs by itself: 1000 logical clients that only send 125,000 floats back.

Every configuration runs in a fresh process on the same machine, one after the other; peak memory is
that of the process and everything it started.

    python benchmarks/engine.py
"""

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import psutil
from flwr.common import ConfigRecord, Context
from flwr.serverapp import ServerApp
from idle_client import FLOATS, client_app

from byzflower.flower.compat import array_record, poll_often, run_on_ray
from byzflower.server.engines.inline import InlineGrid
from byzflower.strategies import FedAvg


def rounds(grid: Any, clients: int, nodes: int, count: int) -> list[float]:
    """Seconds of each round."""
    poll_often(grid, nodes)
    strategy = FedAvg(num_clients=clients, min_available_nodes=nodes, fraction_evaluate=0.0)
    arrays, seconds = array_record({"w": np.zeros(FLOATS, np.float32)}), []
    for server_round in range(1, count + 1):
        started = time.perf_counter()
        messages = strategy.configure_train(server_round, arrays, ConfigRecord(), grid)
        replies = grid.send_and_receive(messages, timeout=600)
        new, _ = strategy.aggregate_train(server_round, replies)
        seconds.append(time.perf_counter() - started)
        assert new is not None
        assert len(strategy.last_round.clients) == clients
        arrays = new
    return seconds


def run(clients: int, nodes: int, count: int, inline: bool) -> None:
    """Run one configuration and print its seconds per round."""
    if inline:
        grid = InlineGrid(client_app, nodes)
        print(json.dumps(rounds(grid, clients, nodes, count)))
        grid.close()
        return
    app = ServerApp()

    @app.main()
    def main(grid: Any, context: Context) -> None:
        print(json.dumps(rounds(grid, clients, nodes, count)))

    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": {"log_to_driver": False}}
    run_on_ray(app, client_app, nodes, resources)


def measure(clients: int, nodes: int, count: int, inline: bool) -> tuple[float, float]:
    """Median seconds per round after the first, and peak memory of all processes in GB."""
    case = json.dumps([clients, nodes, count, inline])
    command = [sys.executable, "-W", "ignore", __file__, "--case", case]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            peak[0] = max(peak[0], _memory(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, errors = process.communicate()
    done.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(errors[-2000:])
    lines = [line for line in output.splitlines() if line.startswith("[")]
    return statistics.median(json.loads(lines[-1])[1:]), peak[0] / 1e9


def _memory(pid: int | None) -> int:
    """Unique memory of a process and its descendants, and the shared memory they use."""
    total = shared = 0
    try:
        parent = psutil.Process(pid)
        for process in [parent, *parent.children(recursive=True)]:
            memory = process.memory_info()
            total += memory.rss - memory.shared
            shared = max(shared, memory.shared)
    except psutil.NoSuchProcess:
        pass
    return total + shared


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        run(*json.loads(arguments.case))
        return
    n = arguments.clients
    cases = [(f"Ray, {nodes} nodes", nodes, False) for nodes in (n, 50, 8, 2)] + [
        ("inline, 2 nodes", 2, True)
    ]
    results = {}
    print(f"| {n} clients, {FLOATS:,} floats each | s/round | times faster | peak GB |\n|---|---|---|---|")
    for name, nodes, inline in cases:
        seconds, peak = results[name] = measure(n, nodes, arguments.rounds, inline)
        first = next(iter(results.values()))[0]
        print(f"| {name} | {seconds:.2f} | {first / seconds:.1f} | {peak:.2f} |", flush=True)


if __name__ == "__main__":
    main()
