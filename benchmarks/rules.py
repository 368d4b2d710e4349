"""Every rule's time and extra memory beside byzfl's and Flower's own, and beside what no rule can beat.

One process; the libraries take turns, and the best of a few turns counts. Extra memory is how far the
process's peak rises above what it held before, as a share of the matrix X itself (Linux only).

    pip install -c constraints.txt ".[benchmark]"
    python benchmarks/rules.py --shape 100x1000000
"""

import argparse
import ctypes
import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch

from byzflower import strategies as ours
from byzflower.datasets.torchvision_guard import import_torchvision

_LIBC = ctypes.CDLL(None)
Call = Callable[[], Any]
TURNS = 5
BUDGET = 15.0  # seconds per library and rule, after which it gets no more turns
NNM = "NNM, then Multi-Krum"


class Cost(NamedTuple):
    """Best time in seconds, and extra memory at the peak in bytes."""

    seconds: float
    extra: float


def take_turns(calls: dict[str, Call]) -> dict[str, Cost]:
    """Measure what does the same job, one after the other, several times."""
    costs: dict[str, Cost] = {}
    spent = dict.fromkeys(calls, 0.0)
    for turn in range(TURNS):
        for name, call in calls.items():
            if turn and spent[name] * (turn + 1) / turn > BUDGET:
                continue
            seconds, extra = once(call)
            spent[name] += seconds
            if turn == 0:  # warms up caches
                costs[name] = Cost(seconds, 0.0)
            else:
                costs[name] = Cost(min(costs[name].seconds, seconds), max(costs[name].extra, extra))
    return costs


def once(call: Call) -> Cost:
    """Measure one call."""
    gc.collect()
    _LIBC.malloc_trim(0)  # memory that is kept for reuse counts as extra, too
    time.sleep(
        0.05
    )  # torch's threads spin a while after they are done, and take the cores from whoever is next
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what is held now
    held = peak()
    started = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - started
    extra = peak() - held
    del result
    return Cost(seconds, extra)


def peak() -> float:
    """The process's peak of resident memory, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024.0 * int(status.split("VmHWM:")[1].split()[0])


def limits(x: torch.Tensor) -> dict[str, Call]:
    """What the rules are made of: reading X once, one product of it with itself, one sort of its columns."""
    values = x.numpy()
    return {
        "one pass, X.mean(0)": lambda: x.mean(0),
        "one Gram product, X @ X.T": lambda: x @ x.T,
        "np.sort over columns": lambda: np.sort(values, axis=0),
    }


def our_rules(x: torch.Tensor, f: int) -> dict[str, Call]:
    """Our pure functions."""
    halves = [slice(0, x.shape[1] // 2), slice(x.shape[1] // 2, x.shape[1])]
    reference = torch.ones(x.shape[1])

    def nnm_krum() -> Any:
        return ours.multi_krum(ours.NearestNeighborMixing(f).apply(ours.Rows.of(x)), f)

    return {
        "mean": lambda: ours.mean(x),
        "median": lambda: ours.median(x),
        "trimmed mean": lambda: ours.trimmed_mean(x, f),
        "MeaMed": lambda: ours.meamed(x, f),
        "Krum": lambda: ours.krum(x, f),
        "Multi-Krum": lambda: ours.multi_krum(x, f),
        "Bulyan": lambda: ours.bulyan(x, min(f, (len(x) - 3) // 4)),
        "geometric median, 3 steps": lambda: ours.geometric_median(x, None, 3, 0.1),
        "centered clipping": lambda: ours.centered_clipping(x, None, 10.0, 1),
        "MoNNA": lambda: ours.monna(x, f, 0),
        "CAF": lambda: ours.caf(x, f),
        NNM: nnm_krum,
        "Aksel": lambda: ours.aksel(x),
        "DnC": lambda: ours.dnc(x, f),
        "FLTrust": lambda: ours.fltrust(x, reference),
        "SignGuard": lambda: ours.sign_guard(x),
        "FedSign": lambda: ours.fedsign(x),
        "Robust-DPFL": lambda: ours.robust_dpfl(x),
        "LASA": lambda: ours.lasa(x, halves),
        "FLGuardian": lambda: ours.flguardian(x, halves),
    }


def byzfl_rules(x: torch.Tensor, f: int) -> dict[str, Call]:
    """The same of byzfl."""
    import_torchvision()  # byzfl imports it, and needs the guard beside a CPU-only torch
    import byzfl

    return {
        "mean": lambda: byzfl.Average()(x),
        "median": lambda: byzfl.Median()(x),
        "trimmed mean": lambda: byzfl.TrMean(f)(x),
        "MeaMed": lambda: byzfl.Meamed(f)(x),
        "Krum": lambda: byzfl.Krum(f)(x),
        "Multi-Krum": lambda: byzfl.MultiKrum(f)(x),
        "geometric median, 3 steps": lambda: byzfl.GeometricMedian(nu=0.1, T=3)(x),
        "centered clipping": lambda: byzfl.CenteredClipping(m=None, L=1, tau=10.0)(x),
        "MoNNA": lambda: byzfl.MoNNA(f, 0)(x),
        "CAF": lambda: byzfl.CAF(f)(x),
        NNM: lambda: byzfl.MultiKrum(f)(byzfl.NNM(f)(x)),
    }


def flower_rules(x: torch.Tensor, f: int) -> dict[str, Call]:
    """The same of Flower's own strategies, on lists of ndarrays as they take them."""
    from flwr.server.strategy import aggregate as flower

    replies = [([row], 1) for row in x.numpy()]
    n = len(replies)
    return {
        "mean": lambda: flower.aggregate(replies),
        "median": lambda: flower.aggregate_median(replies),
        "trimmed mean": lambda: flower.aggregate_trimmed_avg(replies, f / n),
        "Krum": lambda: flower.aggregate_krum(replies, f, 0),
        "Multi-Krum": lambda: flower.aggregate_krum(replies, f, n - f),
    }


def fits(rule: str, library: str, x: torch.Tensor) -> bool:
    """Whether the machine has the memory: byzfl's NNM makes an n x n x d tensor."""
    needs = len(x) * x.numel() * x.element_size() if (rule, library) == (NNM, "byzfl") else 0
    return needs < psutil.virtual_memory().total


def table(n: int, d: int, only: str) -> None:
    """Print one table."""
    f = n // 5
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(0))
    size = x.numel() * x.element_size()
    libraries = {"ours": our_rules(x, f), "byzfl": byzfl_rules(x, f), "Flower": flower_rules(x, f)}
    print(f"\n({n}, {d:,}), f = {f}\n")
    print("| | ms | extra memory / X | byzfl ms | byzfl / ours | Flower ms | Flower / ours |")
    print("|---|---|---|---|---|---|---|")
    for name, cost in take_turns(limits(x)).items():
        print(f"| *{name}* | {1000 * cost.seconds:.1f} | {cost.extra / size:.2f} | | | | |", flush=True)
    for rule in libraries["ours"]:
        if only not in rule:
            continue
        there = {name: rules[rule] for name, rules in libraries.items() if rule in rules}
        costs = take_turns({name: call for name, call in there.items() if fits(rule, name, x)})
        mine = costs["ours"]
        cells = [rule, f"{1000 * mine.seconds:.1f}", f"{mine.extra / size:.2f}"]
        for name in ("byzfl", "Flower"):
            if name in costs:
                theirs = costs[name].seconds
                cells += [f"{1000 * theirs:.0f}", f"{theirs / mine.seconds:.1f}"]
            else:
                cells += ["too large" if name in there else "", ""]
        print(f"| {' | '.join(cells)} |", flush=True)


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
