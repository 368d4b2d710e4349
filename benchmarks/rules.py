"""Every rule's time and extra memory beside byzfl's and Flower's own, and beside what no rule can beat.

One process, one run: each measurement is the best of a few, and the libraries take turns. Extra memory is
how far the process's peak rises above what it held before, as a share of the matrix X itself (Linux only).

    pip install -c constraints.txt ".[benchmark]"
    python benchmarks/rules.py --shape 100x1000000
"""

import argparse
import gc
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from byzflower import strategies as ours
from byzflower.datasets.torchvision_guard import import_torchvision
from byzflower.strategies import pre_aggregation as pre
from byzflower.strategies.rows import Rows

Call = Callable[[], Any]
BUDGET = 20.0  # seconds per measurement, beyond which it is not repeated


def measure(call: Call, repeats: int = 5) -> tuple[float, float]:
    """Best time in seconds, and extra memory in bytes at the peak."""
    best, extra = float("inf"), 0.0
    for attempt in range(repeats):
        gc.collect()
        held = _reset_peak()
        started = time.perf_counter()
        result = call()
        seconds = time.perf_counter() - started
        extra = max(extra, _peak() - held) if attempt else extra  # the first call warms up caches
        del result
        best = min(best, seconds)
        if seconds * (repeats - attempt) > BUDGET and attempt >= 1:
            break
    return best, extra


def _reset_peak() -> float:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return _peak()


def _peak() -> float:
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("VmHWM"))
    return 1024.0 * int(line.split()[1])


def limits(x: torch.Tensor) -> dict[str, Call]:
    """What the rules are made of: reading X once, one product of it with itself, one sort of its columns."""
    values = x.numpy()
    return {
        "one pass: X.mean(0)": lambda: x.mean(0),
        "one Gram product: X @ X.T": lambda: x @ x.T,
        "np.sort over columns": lambda: np.sort(values, axis=0),
    }


def our_rules(x: torch.Tensor, f: int) -> dict[str, Call]:
    """Our pure functions."""

    def nnm_krum() -> Any:
        return ours.multi_krum(pre.NearestNeighborMixing(f)(Rows(x), 1), f)

    return {
        "mean": lambda: ours.mean(x),
        "median": lambda: ours.median(x),
        "trimmed mean": lambda: ours.trimmed_mean(x, f),
        "MeaMed": lambda: ours.meamed(x, f),
        "Krum": lambda: ours.krum(x, f),
        "Multi-Krum": lambda: ours.multi_krum(x, f),
        "Bulyan": lambda: ours.bulyan(x, min(f, (len(x) - 3) // 4)),
        "geometric median": lambda: ours.geometric_median(x, num_steps=3, smoothing=0.1),
        "centered clipping": lambda: ours.centered_clipping(x, torch.zeros(x.shape[1]), 10.0),
        "Aksel": lambda: ours.aksel(x),
        "DnC": lambda: ours.dnc(x, f),
        "MoNNA": lambda: ours.monna(x, f, 0),
        "CAF": lambda: ours.caf(x, f),
        "NNM, then Multi-Krum": nnm_krum,
    }


def byzfl_rules(x: torch.Tensor, f: int) -> dict[str, Call]:
    """The same of byzfl."""
    import_torchvision()
    import byzfl

    def nnm_krum() -> Any:
        return byzfl.MultiKrum(f)(byzfl.NNM(f)(x))

    return {
        "mean": lambda: byzfl.Average()(x),
        "median": lambda: byzfl.Median()(x),
        "trimmed mean": lambda: byzfl.TrMean(f)(x),
        "MeaMed": lambda: byzfl.Meamed(f)(x),
        "Krum": lambda: byzfl.Krum(f)(x),
        "Multi-Krum": lambda: byzfl.MultiKrum(f)(x),
        "geometric median": lambda: byzfl.GeometricMedian(nu=0.1, T=3)(x),
        "centered clipping": lambda: byzfl.CenteredClipping(m=None, L=1, tau=10.0)(x),
        "MoNNA": lambda: byzfl.MoNNA(f, 0)(x),
        "CAF": lambda: byzfl.CAF(f)(x),
        "NNM, then Multi-Krum": nnm_krum,
    }


def flower_rules(x: torch.Tensor, f: int) -> dict[str, Call]:
    """The same of Flower's own strategies, on lists of ndarrays as they take them."""
    from flwr.server.strategy import aggregate as flower

    replies = [([row], 1) for row in x.numpy()]
    return {
        "mean": lambda: flower.aggregate(replies),
        "median": lambda: flower.aggregate_median(replies),
        "trimmed mean": lambda: flower.aggregate_trimmed_avg(replies, f / len(replies)),
        "Krum": lambda: flower.aggregate_krum(replies, f, 0),
        "Multi-Krum": lambda: flower.aggregate_krum(replies, f, len(replies) - f),
        "Bulyan": lambda: flower.aggregate_bulyan(
            replies, min(f, (len(replies) - 3) // 4), flower.aggregate_krum, to_keep=0
        ),
    }


def table(n: int, d: int, only: str) -> None:
    """Print one table."""
    f = n // 5
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(0))
    size = x.numel() * x.element_size()
    print(f"\n({n}, {d:,}), f = {f}\n")
    print("| | ms | extra memory / X | byzfl ms | byzfl / ours | Flower ms | Flower / ours |")
    print("|---|---|---|---|---|---|---|")
    for name, call in limits(x).items():
        seconds, extra = measure(call)
        print(f"| *{name}* | {1000 * seconds:.1f} | {extra / size:.2f} | | | | |", flush=True)
    others = [byzfl_rules(x, f), flower_rules(x, f)]
    for name, call in our_rules(x, f).items():
        if only not in name:
            continue
        seconds, extra = measure(call)
        cells = [f"{1000 * seconds:.1f}", f"{extra / size:.2f}"]
        for rules in others:
            cells += _beside(rules.get(name), seconds)
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _beside(call: Call | None, ours_seconds: float) -> list[str]:
    if call is None:
        return ["", ""]
    try:
        theirs, _ = measure(call, repeats=2)
    except (MemoryError, RuntimeError):  # torch says RuntimeError when it cannot allocate
        return ["out of memory", ""]
    return [f"{1000 * theirs:.0f}", f"{theirs / ours_seconds:.1f}"]


def main() -> None:
    """Print a table per shape."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", action="append", help="n x d, e.g. 100x1000000; several times for several")
    parser.add_argument("--only", default="", help="only rules with this in their name")
    arguments = parser.parse_args()
    for shape in arguments.shape or ["20x270000", "50x1000000", "100x1000000"]:
        n, d = map(int, shape.split("x"))
        table(n, d, arguments.only)


if __name__ == "__main__":
    main()
