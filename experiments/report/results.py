"""Results of a grid as tables: means over seeds, beside the paper's numbers."""

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from byzflower.experiments.recipe import SEED, Plan, Recipe, Scale, load_plan
from byzflower.experiments.runner import ERROR_FILE
from byzflower.flower.text import plain
from byzflower.server.config.checks import ConfigError
from byzflower.server.config.tasks import Config, make_config
from byzflower.server.files import RunFolderError
from byzflower.server.results import CONFIG, read_result, read_rounds

RECIPE_FILE = "recipe.toml"
_LESS_IS_BETTER = frozenset(
    {"loss", "train-loss", "quarantined", "skipped", "seconds a round", "MB up", "MB down"}
)


@dataclass(frozen=True)
class Run:
    """One finished, failed or missing run.

    Attributes:
        labels: its place in the grid.
        config: its configuration.
        result: the content of result.json, and averages of what rounds.jsonl has besides; or None.
        error: the last line of its error, if it failed.
        tried: which of several tries it is.
    """

    labels: dict[str, str]
    config: Config
    result: dict[str, Any] | None
    error: str = ""
    tried: str = ""

    @property
    def place(self) -> str:
        """Its place in the grid, in words."""
        return place_of(self.labels, self.tried)

    def value(self, metric: str) -> float | None:
        """A number of its result."""
        value = (self.result or {}).get(metric)
        return None if value is None else float(value)


def place_of(labels: Mapping[str, str], tried: str = "") -> str:
    """A run's labels in words."""
    words = [f"{axis} {label}" for axis, label in labels.items()]
    return ", ".join([*words, tried] if tried else words)


class Statistic(NamedTuple):
    """Mean and (unbiased) standard deviation over `seeds` seeds; NaN deviation for one."""

    mean: float
    std: float
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Statistic":
        """Of at least one value."""
        std = statistics.stdev(values) if len(values) > 1 else math.nan
        return cls(statistics.fmean(values), std, len(values))

    def __str__(self) -> str:
        return f"{self.mean:.3f}" if math.isnan(self.std) else f"{self.mean:.3f} ± {self.std:.3f}"


@dataclass(frozen=True)
class Entry:
    """One place of a table.

    Attributes:
        value: over the seeds; None if nothing is there.
        best: whether it is the best of its row.
        paper: the paper's value, if known.
        missing: what is there instead of a value.
        tolerance: how far from the paper's value still agrees with it; 0 to pass no verdict.
        tried: which try the value is of, if there were several.
    """

    value: Statistic | None
    best: bool = False
    paper: float | None = None
    missing: str = "-"
    tolerance: float = 0.0
    tried: str = ""

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        return None if self.value is None or self.paper is None else self.value.mean - self.paper

    @property
    def verdict(self) -> str:
        """Whether ours agrees with the paper's, in words; empty where there is nothing to judge."""
        if self.difference is None or not self.tolerance:
            return ""
        within = abs(self.difference) <= self.tolerance + 1e-9
        return f"{'within' if within else 'beyond'} {self.tolerance:g}"


@dataclass(frozen=True)
class Table:
    """A metric by rows and columns.

    Attributes:
        title: what and where.
        metric: which number.
        rows: labels.
        columns: labels.
        entries: (row, column) -> entry.
    """

    title: str
    metric: str
    rows: list[str]
    columns: list[str]
    entries: dict[tuple[str, str], Entry]

    @property
    def is_empty(self) -> bool:
        """Whether no entry has a value."""
        return all(entry.value is None for entry in self.entries.values())

    @property
    def uniform(self) -> str | None:
        """The one value that every entry has, if there are several entries and they all have it."""
        values = {entry.value and str(entry.value) for entry in self.entries.values()}
        return values.pop() if len(values) == 1 and len(self.entries) > 1 else None


@dataclass(frozen=True)
class Report:
    """Runs and how to lay them out.

    Attributes:
        name: of the recipe or folder.
        recipe: titles, axes, the paper's numbers.
        axes: axis -> labels.
        runs: all of them, also those that failed or are missing.
        note: what is smaller than in the paper.
    """

    name: str
    recipe: Recipe
    axes: dict[str, list[str]]
    runs: list[Run]
    note: str = ""

    @property
    def failures(self) -> list[Run]:
        """Runs that ended with an error."""
        return [run for run in self.runs if run.error]

    def panels(self) -> Iterator[dict[str, str]]:
        """Every combination of the axes that are neither rows, columns nor seeds."""
        rest = [axis for axis in self.axes if axis not in (self.recipe.rows, self.recipe.columns, SEED)]
        for labels in product(*(self.axes[axis] for axis in rest)):
            yield dict(zip(rest, labels, strict=True))

    def table(self, metric: str, panel: Mapping[str, str]) -> Table:
        """The mean of a metric over seeds, for one panel."""
        rows, columns = self.axes[self.recipe.rows], self.axes[self.recipe.columns]
        entries = {
            (row, column): self._entry(metric, {**panel, self.recipe.rows: row, self.recipe.columns: column})
            for row, column in product(rows, columns)
        }
        for row in rows:
            _mark_best([(row, column) for column in columns], entries, self._less_is_better(metric))
        place = place_of(panel)
        return Table(f"{metric}{f' ({place})' if place else ''}", metric, rows, columns, entries)

    def matching(self, labels: Mapping[str, str]) -> list[Run]:
        """Runs with these labels."""
        return [run for run in self.runs if all(run.labels.get(a) == x for a, x in labels.items())]

    def shown(self, labels: Mapping[str, str]) -> list[Run]:
        """Of the runs with these labels those of one try: the one with the lowest mean metric."""
        tries: dict[str, list[Run]] = {}
        for run in self.matching(labels):
            tries.setdefault(run.tried, []).append(run)

        def mean(tried: str) -> float:
            values = [v for run in tries[tried] if (v := run.value(self.recipe.metric)) is not None]
            return statistics.fmean(values) if values else math.inf

        return tries[min(tries, key=mean)] if tries else []

    @property
    def diagnostics(self) -> list[str]:
        """What the runs recorded about how the attack lies among the benign updates."""
        names = {name for run in self.runs for name in (run.result or {}).get("diagnostics", ())}
        return sorted(names)

    def _less_is_better(self, metric: str) -> bool:
        if metric == self.recipe.metric and self.recipe.best == "lowest":
            return True
        return metric in _LESS_IS_BETTER

    def _entry(self, metric: str, labels: Mapping[str, str]) -> Entry:
        runs = self.shown(labels)
        values = [value for run in runs if (value := run.value(metric)) is not None]
        paper = self._paper(labels) if metric == self.recipe.metric else None
        if values:
            return Entry(
                Statistic.of(values), paper=paper, tolerance=self.recipe.tolerance, tried=runs[0].tried
            )
        waiting = any(run.result is None for run in runs)
        missing = "failed" if any(run.error for run in runs) else "…" if waiting else "-"
        return Entry(None, paper=paper, missing=missing)

    def _paper(self, labels: Mapping[str, str]) -> float | None:
        for known in self.recipe.papers_values():
            where = {axis: str(label) for axis, label in known.items() if axis != self.recipe.metric}
            if where.items() <= labels.items():
                return float(known[self.recipe.metric])
        return None


def _mark_best(
    keys: Sequence[tuple[str, str]], entries: dict[tuple[str, str], Entry], less_is_better: bool
) -> None:
    means = {key: own.value.mean for key in keys if (own := entries[key]).value is not None}
    if len({f"{mean:.3f}" for mean in means.values()}) < 2:
        return  # nothing to choose from
    best = min(means.values()) if less_is_better else max(means.values())
    for key, mean in means.items():
        if f"{mean:.3f}" == f"{best:.3f}":
            own = entries[key]
            entries[key] = replace(own, best=True)


def load_report(folder: Path) -> Report:
    """Read a grid's folder (it holds recipe.toml), or any folder with runs below it.

    Raises:
        ConfigError: there are no runs.
    """
    if (folder / RECIPE_FILE).is_file():
        return _grid_report(folder)
    runs = [_read_run(path.parent) for path in sorted(folder.rglob(CONFIG))]
    if not runs:
        raise ConfigError(f"report: no runs in {folder}")
    return _loose_report(folder.name, runs)


def plan_of(folder: Path) -> Plan:
    """The plan whose runs are in ``<out>/<recipe>/<scale>``."""
    scale: Scale = "quick" if folder.name == "quick" else "full"
    plan = load_plan(folder / RECIPE_FILE, scale, str(folder.parent.parent))
    name = {"name": f"{folder.parent.name}/{scale}"}
    renamed = [cell._replace(config=cell.config.model_copy(update=name)) for cell in plan.cells]
    return replace(plan, name=folder.parent.name, cells=renamed)


def _grid_report(folder: Path) -> Report:
    plan = plan_of(folder)
    runs = [Run(cell.labels, cell.config, *_outcome(cell.config.folder()), cell.tried) for cell in plan.cells]
    name = f"{plan.name} ({plan.scale})"
    return Report(name, plan.recipe, plan.axes, runs, plan.note)


def _read_run(folder: Path) -> tuple[Config, dict[str, Any] | None, str]:
    import tomllib

    path = folder / CONFIG
    try:
        config = make_config(tomllib.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None
    return config, *_outcome(folder)


def _loose_report(name: str, runs: Sequence[tuple[Config, dict[str, Any] | None, str]]) -> Report:
    """Lay out single runs by attack and strategy, and by whatever else differs between them."""
    dumps = [{k: str(v) for k, v in config.model_dump().items()} for config, _, _ in runs]
    ignored = {"out", "name", "imports", "engine", "nodes", "clients_per_node", "attack", "strategy", SEED}
    differing = [k for k in dumps[0] if k not in ignored and len({d[k] for d in dumps}) > 1]
    axes = ["attack", "strategy", *differing, SEED]
    labelled = [
        Run({axis: dump[axis] for axis in axes}, config, result, error)
        for dump, (config, result, error) in zip(dumps, runs, strict=True)
    ]
    labels = {axis: list(dict.fromkeys(run.labels[axis] for run in labelled)) for axis in axes}
    return Report(name, Recipe(title=f"Runs in {name}", cross={}), labels, labelled)


def _outcome(folder: Path) -> tuple[dict[str, Any] | None, str]:
    if (folder / ERROR_FILE).is_file():
        lines = (folder / ERROR_FILE).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return None, plain(lines[-1] if lines else "ended, and nobody knows why")
    try:
        return {**read_result(folder), **_averages(read_rounds(folder))}, ""
    except FileNotFoundError:
        return None, ""
    except RunFolderError as error:
        return None, str(error)


def number(record: Mapping[str, Any], metric: str) -> float | None:
    """A number of a round's record: its own, of its diagnostics, or of the clients' training."""
    name = metric.removeprefix("best_")
    for part in (record, record.get("diagnostics", {}), record.get("train", {})):
        if part.get(name) is not None:
            return float(part[name])
    return None


def _averages(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Averages of measurements that are in rounds.jsonl only.

    Seconds, traffic and diagnostics of a round on average; the clients' training loss in the last one.
    """
    trained = [record for record in rounds if record["round"] > 0]
    if not trained:
        return {}
    diagnostics = sorted({name for record in trained for name in record.get("diagnostics", ())})

    def mean(values: Iterable[float | None]) -> float:
        return statistics.fmean(value for value in values if value is not None)

    return {
        "seconds a round": mean(r["seconds"]["round"] for r in trained),
        "MB up": mean(r["bytes_up"] for r in trained) / 1e6,
        "MB down": mean(r["bytes_down"] for r in trained) / 1e6,
        "train-loss": number(trained[-1], "train-loss"),
        "diagnostics": diagnostics,
        **{name: mean(number(record, name) for record in trained) for name in diagnostics},
    }
