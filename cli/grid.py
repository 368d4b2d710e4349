"""The command ``grid``: run recipes, and show how far they are."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from byzflower.cli.console import complain, console, names_of_mistakes, say
from byzflower.cli.options import Imports
from byzflower.experiments.recipe import Cell, Plan, Scale, find_recipes, load_plan, select
from byzflower.experiments.report.results import RECIPE_FILE, place_of
from byzflower.experiments.runner import ENDED, Progress, State, is_done, run_cells
from byzflower.flower.text import plain
from byzflower.numerics.cores import usable_cores
from byzflower.plugins import module_names
from byzflower.server.config.checks import ConfigError


def grid(
    recipes: Annotated[Path, typer.Argument(help="a recipe (TOML), or a folder of them")],
    scale: Annotated[str, typer.Option(help="full, or quick: minutes on two cores")] = "full",
    jobs: Annotated[int, typer.Option(help="runs side by side; 0 for one per core")] = 0,
    only: Annotated[list[str] | None, typer.Option(help="only these, e.g. attack=alie")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show what would run")] = False,
    out: Annotated[str, typer.Option(help="folder for results")] = "runs",
    imports: Imports = None,
) -> None:
    """Run the recipes' grids: what is finished is not repeated, what is interrupted goes on."""
    with names_of_mistakes():
        if scale not in ("full", "quick"):
            raise ConfigError(f"scale: full or quick, got {scale!r}")
        plans = [
            load_plan(path, _scale(scale), out, module_names(imports or ())) for path in find_recipes(recipes)
        ]
        chosen = [select(plan.cells, plan.axes, only or []) for plan in plans]
    failed, started = 0, time.monotonic()
    for plan, cells in zip(plans, chosen, strict=True):
        _announce(plan, cells)
        if dry_run:
            continue
        folder = plan.folder(out)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECIPE_FILE).write_text(plan.source)
        progress = _run_with_table(plan, cells, jobs or usable_cores())
        failed += sum(own.state is State.FAILED for own in progress)
        for cell, own in zip(cells, progress, strict=True):
            if own.state is State.FAILED:
                complain(f"{_place(cell)}: {own.error} ({cell.config.folder()})")
        elsewhere = sum(own.state is State.ELSEWHERE for own in progress)
        if elsewhere:
            say(f"{elsewhere} runs are left to the process that is working on them")
        if any(own.state is State.STOPPED for own in progress):
            say("stopped; the same command goes on from the last finished rounds")
            raise typer.Exit(130)
        say(f"report: python run_sim.py report {folder}")
    if not dry_run:
        say(f"{len(plans)} recipes in {time.monotonic() - started:.0f} s")
    if failed:
        raise typer.Exit(1)


def _scale(name: str) -> Scale:
    return "quick" if name == "quick" else "full"


def _announce(plan: Plan, cells: Sequence[Cell]) -> None:
    done = sum(is_done(cell.config) for cell in cells)
    axes = " x ".join(f"{len(labels)} {axis}" for axis, labels in plan.axes.items())
    left_out = f", {plan.excluded} excluded by the recipe" if plan.excluded else ""
    text = plain(f" ({plan.scale}): {axes}: {len(cells)} runs, {done} done{left_out}", 4000)
    console.print(Text.assemble((plain(plan.name), "bold"), text), soft_wrap=True)


class _LiveTable:
    """What runs, what is done, and how long it will take."""

    def __init__(self, live: Live, title: str) -> None:
        self._live, self._title, self._started = live, plain(title), time.monotonic()
        self._done_before: int | None = None

    def update(self, cells: Sequence[Cell], progress: Sequence[Progress]) -> None:
        """Draw it anew."""
        done = sum(own.state in ENDED for own in progress)
        if self._done_before is None:
            self._done_before = done
        table = Table(title=f"{self._title}: {done} of {len(cells)} done{self._left(cells, progress, done)}")
        for column in ("run", "round", "score", "s/round"):
            table.add_column(column, justify="left" if column == "run" else "right")
        for cell, own in zip(cells, progress, strict=True):
            if own.state is State.RUNNING:
                pace = f"{own.seconds / own.round:.2f}" if own.round else ""
                score = "" if own.score is None else f"{own.score:.3f}"
                table.add_row(plain(_place(cell)), f"{own.round}/{cell.config.rounds}", score, pace)
        self._live.update(table)

    def _left(self, cells: Sequence[Cell], progress: Sequence[Progress], done: int) -> str:
        """Time left, judged by the rounds finished since the start."""
        total = sum(cell.config.rounds for cell in cells)
        finished = sum(
            cell.config.rounds if own.state in ENDED else own.round
            for cell, own in zip(cells, progress, strict=True)
        )
        new = finished - (self._done_before or 0) * (total / len(cells))
        spent = time.monotonic() - self._started
        if new <= 0 or spent < 2:
            return ""
        minutes, seconds = divmod(int((total - finished) * spent / new), 60)
        return f", {minutes}:{seconds:02d} left"


def _run_with_table(plan: Plan, cells: Sequence[Cell], jobs: int) -> list[Progress]:
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        return run_cells(cells, jobs, _LiveTable(live, f"{plan.name} ({plan.scale})"))


def _place(cell: Cell) -> str:
    return place_of(cell.labels, cell.tried)
