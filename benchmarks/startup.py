"""How long it takes to start: imports, help, names, a typo, and an inline run until its first round.

Usage: python benchmarks/startup.py [REPETITIONS]

Each line is a process of its own, run several times; the fastest counts. CPU seconds depend less on what else
the machine does.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUN_SIM = str(Path(__file__).parents[1] / "run_sim.py")
FIRST_ROUND = """
import os, tempfile
from byzflower.server.config.tasks import make_config
from byzflower.server.engines.simulation import simulate
config = make_config({"engine": "inline", "rounds": 1, "out": tempfile.mkdtemp()})
simulate(config, lambda record: os._exit(0))  # round 0: the model is there, and is scored
"""
LINES = {
    "`import torch, flwr.serverapp`": ["-c", "import torch, flwr.serverapp"],
    "`import byzflower.strategies`": ["-c", "import byzflower.strategies"],
    "`from byzflower.strategies import MultiKrum`": ["-c", "from byzflower.strategies import MultiKrum"],
    "`run_sim.py --help`": [RUN_SIM, "--help"],
    "`run_sim.py --list`": [RUN_SIM, "--list"],
    "`run_sim.py --atack alie`": [RUN_SIM, "--atack", "alie"],
    "`run_sim.py --attack alei`": [RUN_SIM, "--attack", "alei"],
    "an inline run until its first round": ["-c", FIRST_ROUND],
}


def measure(arguments: list[str]) -> tuple[float, float]:
    """Seconds of wall clock and of CPU that a Python process takes."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, *arguments], capture_output=True, check=False, cwd=folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, cpu


def main() -> None:
    """Print the table."""
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print("| | seconds | CPU seconds |\n|---|---|---|")
    for name, arguments in LINES.items():
        times = [measure(arguments) for _ in range(repetitions)]
        print(f"| {name} | {min(t[0] for t in times):.2f} | {min(t[1] for t in times):.2f} |", flush=True)


if __name__ == "__main__":
    main()
