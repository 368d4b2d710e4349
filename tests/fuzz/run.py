"""The long run: cases by the hundred thousand, on several processes, counted and reported."""

import logging
import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from byzflower.numerics.cores import share_cores

from .cases import Case
from .checks import ESCAPE, WRONG_ACCEPTANCE, WRONG_BLAME, Failure
from .draw import draw_case
from .shrink import shrink
from .trial import run_case

_CHUNK = 200
_SHOWN_A_CATEGORY = 5


@dataclass
class Tally:
    """What came out of some cases.

    Attributes:
        cases: how many, by upload kind.
        failures: how many cases failed, by category.
        examples: number of the case and failure, a few of each category.
        slowest: the longest time that a case of each rule took, in seconds, and its number.
    """

    cases: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[tuple[int, Failure]]] = field(default_factory=dict)
    slowest: dict[str, tuple[float, int]] = field(default_factory=dict)

    def add(self, case: Case, number: int, found: list[Failure], seconds: float) -> None:
        """Count one case; of several failures, the first is the cause."""
        self.cases[case.kind] += 1
        self.slowest[case.rule] = max(self.slowest.get(case.rule, (0.0, 0)), (seconds, number))
        for failure in found[:1]:
            self.failures[failure.category] += 1
            shown = self.examples.setdefault(failure.category, [])
            if len(shown) < _SHOWN_A_CATEGORY:
                shown.append((number, failure))

    def merge(self, other: "Tally") -> None:
        """Add what came out of other cases."""
        self.cases += other.cases
        self.failures += other.failures
        for category, shown in other.examples.items():
            mine = self.examples.setdefault(category, [])
            mine += shown[: _SHOWN_A_CATEGORY - len(mine)]
        for rule, slow in other.slowest.items():
            self.slowest[rule] = max(self.slowest.get(rule, (0.0, 0)), slow)


def run_numbers(seed: int, numbers: range) -> Tally:
    """Run the cases of these numbers."""
    tally = Tally()
    for number in numbers:
        case = draw_case(seed, number)
        started = time.perf_counter()
        try:
            found = run_case(case)
        except Exception as error:  # a fault of the trial itself, which must not end it
            found = [Failure("trial", f"{type(error).__name__}: {error}")]
        tally.add(case, number, found, time.perf_counter() - started)
    return tally


def alone(jobs: int) -> None:
    """Let this process use its share of the cores, and no warnings about numbers that are meant to be odd."""
    np.seterr(all="ignore")
    logging.getLogger("flwr").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    share_cores(max(jobs, multiprocessing.cpu_count()))


def chunks(start: int, count: int | None, deadline: float) -> Iterator[range]:
    """Numbers of cases, in chunks, until there were enough or it is late."""
    number = start
    while (count is None or number < start + count) and time.monotonic() < deadline:
        stop = number + _CHUNK if count is None else min(number + _CHUNK, start + count)
        yield range(number, stop)
        number = stop


def run_many(seed: int, start: int, count: int | None, hours: float, jobs: int) -> Tally:
    """Run cases until there were enough or the time is over, and print how it goes."""
    started = time.monotonic()
    tally, told = Tally(), started
    work = ((seed, numbers) for numbers in chunks(start, count, started + 3600 * hours))
    for part in _parts(work, jobs):
        tally.merge(part)
        if time.monotonic() - told > 60:
            told = time.monotonic()
            print(summary(tally, told - started).splitlines()[0], flush=True)
    print(summary(tally, time.monotonic() - started))
    for category, shown in tally.examples.items():
        for number, failure in shown[:2]:
            small, found = shrink(draw_case(seed, number), run_case)
            print(f"\n{category}, case {number}: {failure.text}\n{small.to_json()}\n-> {found[:1]}")
    return tally


def _parts(work: Iterator[tuple[int, range]], jobs: int) -> Iterator[Tally]:
    if jobs == 1:
        alone(1)
        yield from (run_numbers(*one) for one in work)
        return
    with multiprocessing.get_context("fork").Pool(jobs, alone, (jobs,)) as pool:
        waiting: list[Any] = []
        for one in work:
            waiting.append(pool.apply_async(run_numbers, one))
            if len(waiting) >= 2 * jobs:  # no more in advance than there is time for
                yield waiting.pop(0).get()
        yield from (one.get() for one in waiting)


def summary(tally: Tally, seconds: float) -> str:
    """What came out, as text; the first line is the gist."""
    total = tally.cases.total()
    named = {category: tally.failures[category] for category in (ESCAPE, WRONG_ACCEPTANCE, WRONG_BLAME)}
    named |= {k: v for k, v in sorted(tally.failures.items()) if k not in named}
    counts = ", ".join(f"{category} {count}" for category, count in named.items())
    lines = [f"{total} cases in {seconds:.0f} s, {3600 * total / seconds:.0f} an hour; {counts}"]
    lines.append("by kind: " + ", ".join(f"{kind} {count}" for kind, count in sorted(tally.cases.items())))
    slow = sorted(tally.slowest.items(), key=lambda item: -item[1][0])[:5]
    lines.append("slowest: " + ", ".join(f"{rule} {s * 1000:.0f} ms (case {n})" for rule, (s, n) in slow))
    return "\n".join(lines)
