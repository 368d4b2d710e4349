"""The command line: ``python run_sim.py``, or ``byzflower`` where the package is installed."""

import logging
import os
import sys
from pathlib import Path

import typer

from byzflower.cli.grid import grid
from byzflower.cli.redteam import redteam
from byzflower.cli.report import report
from byzflower.cli.run import run_command
from byzflower.cli.runs import runs
from byzflower.flower.logs import quiet


def make_app() -> typer.Typer:
    """The command line as a typer application."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.callback(invoke_without_command=True)(run_command())
    for command in (grid, report, redteam, runs):
        app.command()(command)
    return app


def main() -> None:
    """Entry point of ``python run_sim.py`` and of the ``byzflower`` command."""
    for variable in (
        "RAY_USAGE_STATS_ENABLED",
        "FLWR_TELEMETRY_ENABLED",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO",  # silences a warning about GPUs that nobody asked for
    ):
        os.environ.setdefault(variable, "0")
    quiet(logging.ERROR)
    # `python run_sim.py` puts the repository's folders (datasets, server, ...) on the import path, and
    # Ray passes it on to its workers, where they would shadow other packages of those names.
    here = str(Path(__file__).resolve().parents[1])
    sys.path[:] = [entry for entry in sys.path if entry not in ("", here)]
    make_app()()
