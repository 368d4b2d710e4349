"""Seconds a round and memory of federated recommendation, on real or made-up data.

python benchmarks/recommendation.py --dataset ml-100k-split --strategies mean,median --engine ray
python benchmarks/recommendation.py --scaling
"""

import argparse
import contextlib
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

import numpy as np
import psutil

from byzflower.models.mf import MF
from byzflower.models.profiles import Profiles
from byzflower.numerics.randomness import numpy_generator
from byzflower.server.config.tasks import make_config
from byzflower.server.engines.simulation import simulate
from byzflower.strategies.items import ITEM_STRATEGIES, ItemRows


class Memory(threading.Thread):
    """Watches what this process and all below it (Ray's, too) need; shared pages count once."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0

    def run(self) -> None:
        """Look four times a second."""
        me = psutil.Process()
        while True:
            total = 0
            for process in (me, *me.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    total += process.memory_full_info().pss
            self.peak = max(self.peak, total)
            time.sleep(0.25)


def measure(options: dict[str, Any]) -> dict[str, Any]:
    """Run one configuration; the median round after the first, in seconds, and all processes' GB together."""
    memory = Memory()
    memory.start()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as out:
        config = make_config(
            {**options, "task": "recommendation", "out": out, "eval_every": options["rounds"]}
        )
        history = simulate(config).recorder.records()
    rounds = [record["seconds"] for record in history if record["round"] > 1]
    return {
        "dataset": config.dataset,
        "strategy": config.strategy,
        "engine": config.engine,
        "seconds a round": statistics.median(r["round"] - r["evaluate"] for r in rounds),
        "of which aggregation": statistics.median(r["aggregate"] for r in rounds),
        "GB": memory.peak / 1e9,
    }


def scaling(strategy: str, sizes: list[int]) -> None:
    """Local training and aggregation of made-up users, for growing numbers of interactions."""
    print("| interactions | train, s | aggregate, s | total per million, s |\n|---|---|---|---|")
    for size in sizes:
        users, items = size // 100, 4000
        random = numpy_generator(0, "benchmark")
        share = np.arange(1, items + 1) ** -0.8
        both = [random.choice(items, 200, replace=False, p=share / share.sum()) for _ in range(users)]
        profiles = Profiles.of([own[:100] for own in both], [own[100:] for own in both])
        model = MF()
        arrays = list(model.arrays(items, 0).values())
        embeddings = np.stack([model.user(0, user) for user in range(users)])
        rule = ITEM_STRATEGIES[strategy]()
        times = []
        for _ in range(3):
            started = time.perf_counter()
            rows = model.gradients(profiles, embeddings, arrays, 0.1).rows
            trained = time.perf_counter()
            distinct = profiles.items.astype(np.int32)
            rule.aggregate_items(ItemRows(rows, np.arange(users), profiles.splits, distinct, items))
            times.append((trained - started, time.perf_counter() - trained))
        train, aggregate = (min(t[i] for t in times) for i in (0, 1))
        print(
            f"| {size:,} | {train:.3f} | {aggregate:.3f} | {(train + aggregate) / size * 1e6:.2f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default="synthetic")
    parser.add_argument("--strategies", default="mean,median")
    parser.add_argument("--attack", default="none")
    parser.add_argument("--engine", choices=("ray", "inline"), default="inline")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument(
        "--scaling", action="store_true", help="growth with the number of interactions instead"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(json.loads(given.one))))
        return
    if given.scaling:
        for strategy in given.strategies.split(","):
            print(f"\n{strategy}\n")
            scaling(strategy, [50_000, 100_000, 200_000, 400_000, 800_000])
        return
    names = ["dataset", "strategy", "engine", "seconds a round", "of which aggregation", "GB"]
    print(f"| {' | '.join(names)} |\n{'|---' * len(names)}|")
    for strategy in given.strategies.split(","):
        options = {k: getattr(given, k) for k in ("dataset", "attack", "engine", "nodes", "rounds")}
        # A process each: the memory is that of one run.
        command = [sys.executable, __file__, "--one", json.dumps({**options, "strategy": strategy})]
        result = json.loads(
            subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        )
        values = [result[name] for name in names]
        print(f"| {' | '.join(f'{v:.2f}' if isinstance(v, float) else v for v in values)} |", flush=True)


if __name__ == "__main__":
    main()
