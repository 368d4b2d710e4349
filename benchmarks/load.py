"""Many large uploads a round through one server process: seconds per round and peak memory.

A SuperLink, a ServerApp with one of our strategies, and one process that speaks for all nodes over
gRPC and sends random uploads without training anything. Everything is on 127.0.0.1.

    python benchmarks/load.py                         # 200 uploads of 1,000,000 floats, 3 rounds
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
from flwr.common import Message, MetricRecord, RecordDict
from raw_node import RawNode

from byzflower.flower.compat import array_record

sys.path.insert(0, str(Path(__file__).parents[1] / "deploy"))
from run_local import LocalDeployment, end_on_sigterm

_APP = Path(__file__).parent / "load-app"


def serve(nodes: int, address: str, floats: int, over: threading.Event, threads: int = 8) -> None:
    """Answer all messages to so many nodes until `over`."""
    random = np.random.default_rng(0)
    third = floats // 3
    upload = {"a": third, "b": third, "c": floats - 2 * third}

    def answer(message: Message, node: int) -> RecordDict:
        arrays = {name: random.random(size, np.float32) for name, size in upload.items()}
        return RecordDict(
            {"arrays": array_record(arrays), "metrics": MetricRecord({"num-examples": 1, "client-id": node})}
        )

    def work(own: range) -> None:
        with contextlib.ExitStack() as stack:
            connected = [(node, stack.enter_context(RawNode(address))) for node in own]
            while not over.is_set():
                for node, raw in connected:
                    message = raw.receive()
                    if message is not None:
                        raw.reply(message, answer(message, node))
                over.wait(0.05)

    # Daemons: Flower's client waits for ever for a SuperLink that has ended.
    workers = [
        threading.Thread(target=work, args=(range(start, nodes, threads),), daemon=True)
        for start in range(threads)
    ]
    for worker in workers:
        worker.start()
    over.wait()
    for worker in workers:
        worker.join(5.0)


def measure(nodes: int, floats: int, rounds: int, strategy: str, timeout: float) -> list[dict[str, Any]]:
    """The server's own record of each round."""
    over = threading.Event()
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        record = Path(folder) / "record"
        with LocalDeployment(Path(folder)) as deployment:
            swarm = threading.Thread(target=serve, args=(nodes, deployment.fleet_address, floats, over))
            swarm.start()
            try:
                options = {"nodes": nodes, "rounds": rounds, "floats": floats, "strategy": strategy}
                deployment.run(_APP, {**options, "record": str(record)}, timeout)
            finally:
                over.set()
                swarm.join()
        return [json.loads(line) for line in record.read_text().splitlines()]


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--floats", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--strategy", default="fedavg,median,multikrum", help="one or more")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds until a strategy is given up")
    arguments = parser.parse_args()
    end_on_sigterm()
    n, floats = arguments.nodes, arguments.floats
    print(f"| {n} uploads of {floats:,} floats | s/round | of it in the rule | before | growth / uploads |")
    print("|---|---|---|---|---|")
    for strategy in arguments.strategy.split(","):
        first, *rounds = measure(n, floats, arguments.rounds, strategy, arguments.timeout)
        assert all(own["clients"] == n for own in rounds)
        seconds = statistics.median(own["seconds"] for own in rounds)
        server = statistics.median(sum(own["parts"].values()) for own in rounds)
        uploads = rounds[0]["uploads"]
        peak = max(own["peak"] for own in rounds)
        cells = [
            f"{seconds:.1f}",
            f"{server:.2f}",
            f"{first['before'] / 1e6:.0f} MB",
            f"{(peak - first['before']) / uploads:.2f}",
        ]
        print(f"| {strategy} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
