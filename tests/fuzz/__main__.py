"""Command line of the hostile trial; see the package."""

import sys
from pathlib import Path

# `python -m tests.fuzz` makes the repository root importable, whose `datasets` and `server` would shadow
# other people's packages. This package itself is found by its own path from here on.
_ROOT = Path(__file__).parents[2]
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != _ROOT]

import argparse  # noqa: E402

from .run import run_many  # noqa: E402


def main() -> int:
    """Run the trial; returns 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="The hostile trial.")
    parser.add_argument("--hours", type=float, default=1.0, help="when to stop at the latest")
    parser.add_argument("--cases", type=int, help="how many to run; default as many as there is time for")
    parser.add_argument("--start", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=1, help="another seed is other cases")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    chosen = parser.parse_args()
    tally = run_many(chosen.seed, chosen.start, chosen.cases, chosen.hours, chosen.jobs)
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
