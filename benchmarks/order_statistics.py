"""Nanoseconds a value for the median of each row, beside NumPy's partition and sort.

With equal values and without; one core; the best of a few turns, in which the three alternate.

    python benchmarks/order_statistics.py
"""

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byzflower.numerics.order_statistics import order_statistics

Work = Callable[[NDArray[np.float32]], object]
_SCALARS = 400_000
_TURNS = 7


def _ours(values: NDArray[np.float32]) -> object:
    n = values.shape[1]
    return order_statistics(values, (n - 1) // 2, n // 2 + 1)


WAYS: dict[str, Work] = {
    "order_statistics": _ours,
    "np.partition": lambda values: np.partition(values, values.shape[1] // 2, axis=1),
    "np.sort": lambda values: np.sort(values, axis=1),
}


def _rows(n: int, equal: float) -> NDArray[np.float32]:
    """Rows of n normal values, of which a share, side by side, are one value."""
    random = np.random.default_rng(n)
    values = random.normal(size=(max(1, _SCALARS // n), n)).astype(np.float32)
    values[:, n - round(equal * n) :] = values[:, :1]
    return values


def main() -> None:
    """Print a table."""
    print(f"| values | of which equal | {' | '.join(WAYS)} |")
    print(f"|---|---|{'---|' * len(WAYS)}")
    for n in (600, 1200, 6000, 270_000):
        for equal in (0.0, 0.4, 0.6, 0.9):
            values, best = _rows(n, equal), dict.fromkeys(WAYS, float("inf"))
            for _ in range(_TURNS):
                for name, work in WAYS.items():
                    started = time.perf_counter()
                    work(values)
                    best[name] = min(best[name], time.perf_counter() - started)
            spent = " | ".join(f"{1e9 * seconds / values.size:.1f}" for seconds in best.values())
            print(f"| {n:,} | {equal:.0%} | {spent} |")


if __name__ == "__main__":
    main()
