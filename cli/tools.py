"""The commands beside a single run: grid, report, redteam."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from matplotlib.figure import Figure
from rich.live import Live
from rich.table import Table
from rich.text import Text

from byzflower.cli.console import complain, console, names_of_mistakes, say
from byzflower.experiments.claims import verdicts
from byzflower.experiments.recipe import Cell, Plan, Scale, find_recipes, load_plan, select
from byzflower.experiments.redteam import Verdict, attack_all, find_strategy
from byzflower.experiments.report import escape
from byzflower.experiments.report.figures import (
    PAGE_INK,
    ROUND_PICTURES,
    curves,
    has_curves,
    heat_map,
    to_png,
    to_svg,
)
from byzflower.experiments.report.page import OTHER_METRICS, to_html
from byzflower.experiments.report.results import RECIPE_FILE, Report, load_report, place_of
from byzflower.experiments.report.tables import to_csv, to_latex, to_markdown
from byzflower.experiments.runner import ENDED, Progress, State, is_done, run_cells
from byzflower.flower.text import plain
from byzflower.numerics.threads import usable_cores
from byzflower.server.config.classification import ConfigError, RunConfig


def grid(
    recipes: Annotated[Path, typer.Argument(help="a recipe (TOML), or a folder of them")],
    scale: Annotated[str, typer.Option(help="full, or quick: minutes on two cores")] = "full",
    jobs: Annotated[int, typer.Option(help="runs side by side; 0 for one per core")] = 0,
    only: Annotated[list[str] | None, typer.Option(help="only these, e.g. attack=alie")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show what would run")] = False,
    out: Annotated[str, typer.Option(help="folder for results")] = "runs",
) -> None:
    """Run the recipes' grids: what is finished is not repeated, what is interrupted goes on."""
    with names_of_mistakes():
        if scale not in ("full", "quick"):
            raise ConfigError(f"scale: full or quick, got {scale!r}")
        plans = [load_plan(path, _scale(scale), out) for path in find_recipes(recipes)]
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


def report(
    folder: Annotated[Path, typer.Argument(help="a grid's folder, or any folder with runs in it")],
    html: Annotated[Path | None, typer.Option(help="also write a self-contained page")] = None,
    to: Annotated[Path | None, typer.Option(help="where to write; default <folder>/report")] = None,
) -> None:
    """Write tables (Markdown, CSV, LaTeX) and figures (PNG, SVG) of runs."""
    with names_of_mistakes():
        loaded = load_report(folder)
    target = to or folder / "report"
    target.mkdir(parents=True, exist_ok=True)
    text = markdown(loaded)
    (target / "report.md").write_text(text, encoding="utf-8")
    _write_tables(loaded, target)
    _write_figures(loaded, target)
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(to_html(loaded), encoding="utf-8")
    console.print(text, soft_wrap=True)
    say(f"written: {target}{'' if html is None else f', {html}'}")


def redteam(
    strategy: Annotated[str, typer.Argument(help="module:name of a strategy, a class, or a function")],
    clients: Annotated[int, typer.Option(help="clients")] = 20,
    byzantine: Annotated[int, typer.Option(help="how many of them are Byzantine")] = 4,
    rounds: Annotated[int, typer.Option(help="rounds per attack")] = 15,
    dataset: Annotated[str, typer.Option(help="data set")] = "digits",
    data: Annotated[str, typer.Option(help="folder with its raw files")] = "",
    model: Annotated[str, typer.Option(help="model")] = "cnn",
    tolerance: Annotated[float, typer.Option(help="accuracy an attack may cost")] = 0.1,
) -> None:
    """Run the catalogue of attacks on your own Flower strategy and say which ones break it."""
    options = {"clients": clients, "byzantine": byzantine, "rounds": rounds, "dataset": dataset}
    options |= {"partition": "dirichlet", "min_size": 5, "clip_norm": 10.0}
    with names_of_mistakes():
        config = RunConfig.make({**options, "data": data, "model": model, "strategy": "fedavg"})
        make = find_strategy(strategy)
        table = Table(title=f"{plain(strategy)}: {clients} clients, {byzantine} Byzantine, {rounds} rounds")
        for column in ("attack", "accuracy", "verdict"):
            table.add_column(column)

        def show(verdict: Verdict) -> None:
            accuracy = "-" if verdict.accuracy is None else f"{verdict.accuracy:.3f}"
            table.add_row(verdict.attack, accuracy, _verdict_text(verdict))

        with Live(table, console=console):
            verdicts = attack_all(make, config, tolerance, show)
    broken = [verdict.attack for verdict in verdicts if verdict.broken]
    say(f"broken by: {', '.join(broken) or 'none of them'}")
    if broken or verdicts[0].error:
        raise typer.Exit(1)


def _verdict_text(verdict: Verdict) -> Text:
    if verdict.error:
        return Text(plain(f"ended: {verdict.error}"), "red")
    if verdict.attack == "none":
        return Text("the clean run")
    return Text("breaks it", "red") if verdict.broken else Text("withstood")


def _scale(name: str) -> Scale:
    return "quick" if name == "quick" else "full"


# -- grid -----------------------------------------------------------------------------------------------


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


# -- report ---------------------------------------------------------------------------------------------


def markdown(loaded: Report) -> str:
    """The whole report as Markdown; figures are beside it."""
    recipe = loaded.recipe
    done = sum(run.result is not None for run in loaded.runs)
    lines = [f"# {escape.markdown(recipe.title)}\n"]
    lines += [f"{escape.markdown(recipe.about)}\n"] if recipe.about else []
    origin = f" Reproduces {escape.markdown(recipe.reproduces)}." if recipe.reproduces else ""
    lines.append(f"{done} of {len(loaded.runs)} runs of {escape.markdown(loaded.name)}.{origin}\n")
    lines += [f"Smaller than the original: {escape.markdown(loaded.note)}\n"] if loaded.note else []
    lines += _claims(loaded)
    for number, panel in enumerate(loaded.panels()):
        for metric in _metrics(loaded):
            table = loaded.table(metric, panel)
            if metric != recipe.metric and table.uniform is not None:
                lines.append(f"{escape.markdown(table.title)}: {table.uniform} everywhere.\n")
            elif metric == recipe.metric or not table.is_empty:
                lines.append(f"## {escape.markdown(table.title)}\n\n{to_markdown(table, recipe.rows)}")
        for metric in (recipe.metric, *recipe.also):
            if has_curves(loaded, panel, metric):
                picture = _file("curves", metric, loaded, number)
                lines.append(f"![{escape.markdown(metric)} over rounds]({picture}.png)\n")
    lines += [f"![rounds]({name}.png)\n" for name, _ in _round_pictures(loaded, "black")]
    lines += [f"Failed: {escape.markdown(f'{run.place}: {run.error}')}\n" for run in loaded.failures]
    return "\n".join(lines)


def _claims(loaded: Report) -> list[str]:
    lines = ["## Claims\n"] if loaded.recipe.claim else []
    for claim in loaded.recipe.claim:
        found = [f"* {escape.markdown(str(verdict))}" for verdict in verdicts(loaded, claim)] or [
            "* not judged: no results of both sides"
        ]
        lines.append("\n".join([f"{escape.markdown(claim.text)}\n", *found, ""]))
    return lines


def _metrics(loaded: Report) -> list[str]:
    """What there are tables of, each once."""
    recipe = loaded.recipe
    return list(dict.fromkeys([recipe.metric, *recipe.also, *loaded.diagnostics, *OTHER_METRICS]))


def _file(kind: str, metric: str, loaded: Report, number: int) -> str:
    """Name of a picture; the recipe's own metric needs no naming."""
    named = "" if metric == loaded.recipe.metric else f"-{escape.file_name(metric)}"
    return f"{kind}{named}-{number}"


def _write_tables(loaded: Report, target: Path) -> None:
    for number, panel in enumerate(loaded.panels()):
        for metric in _metrics(loaded):
            table = loaded.table(metric, panel)
            if table.is_empty:
                continue
            name = f"{escape.file_name(metric)}-{number}"
            (target / f"{name}.csv").write_text(to_csv(table, loaded.recipe.rows), encoding="utf-8")
            (target / f"{name}.tex").write_text(to_latex(table, loaded.recipe.rows), encoding="utf-8")


def _write_figures(loaded: Report, target: Path) -> None:
    for name, figure in _pictures(loaded, "black"):
        (target / f"{name}.png").write_bytes(to_png(figure))
    for name, figure in _pictures(loaded, PAGE_INK):
        (target / f"{name}.svg").write_text(to_svg(figure), encoding="utf-8")


def _pictures(loaded: Report, ink: str) -> Iterator[tuple[str, Figure]]:
    recipe = loaded.recipe
    for number, panel in enumerate(loaded.panels()):
        for metric in (recipe.metric, *recipe.also):
            if (figure := curves(loaded, panel, metric, ink)) is not None:
                yield _file("curves", metric, loaded, number), figure
        if (figure := heat_map(loaded.table(recipe.metric, panel), ink)) is not None:
            yield f"heat-map-{number}", figure
    yield from _round_pictures(loaded, ink)


def _round_pictures(loaded: Report, ink: str) -> Iterator[tuple[str, Figure]]:
    for number, run in enumerate(loaded.runs):
        history = (run.result or {}).get("history", ())
        for name, draw in ROUND_PICTURES.items():
            if (figure := draw(history, run.place, ink)) is not None:
                yield f"{name}-{number}", figure
