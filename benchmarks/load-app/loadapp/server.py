"""A server that notes how long its rounds take and how much memory they need."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from flwr.clientapp import ClientApp
from flwr.common import ConfigRecord, Context
from flwr.server import Grid
from flwr.serverapp import ServerApp

from byzflower.flower.compat import array_record
from byzflower.strategies import STRATEGIES

app = ServerApp()
nobody = ClientApp()  # the nodes of this benchmark run no ClientApp


def memory(field: str) -> int:
    """Resident bytes of this process: now (VmRSS) or at most, since the last reset (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds; write one JSON line for each."""
    options = context.run_config
    nodes, floats = int(options["nodes"]), int(options["floats"])
    rule: Any = STRATEGIES[str(options["strategy"])]
    strategy = rule(min_available_nodes=nodes, fraction_evaluate=0.0)
    marks: list[float] = []

    def note(server_round: int, arrays: object) -> None:
        now = time.perf_counter()
        last = strategy.last_round
        line = {
            "round": server_round,
            "seconds": now - marks[-1] if marks else 0.0,
            "clients": len(last.clients),
            "uploads": last.wire_bytes.get("up", 0),
            "parts": last.seconds,
            "peak": memory("VmHWM"),
            "before": memory("VmRSS"),
        }
        with open(str(options["record"]), "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        marks.append(time.perf_counter())

    third = floats // 3
    model = {"a": third, "b": third, "c": floats - 2 * third}
    arrays = array_record({name: np.zeros(size, np.float32) for name, size in model.items()})
    rounds = int(options["rounds"])
    strategy.start(grid, arrays, rounds, 600, ConfigRecord({}), evaluate_fn=note)
