"""Recipes: a TOML file that says which runs make up a table or figure, checked whole before anything runs."""

import itertools
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from byzflower.server.config.checks import ConfigError, name_fault, unknown_text
from byzflower.server.config.tasks import Config, make_config

SEED = "seed"
Scale = Literal["full", "quick"]
Value = bool | int | float | str
# On an axis: an option's value, or several options with a label, some of which may have to be tried.
Choice = Value | dict[str, Value | dict[str, list[Value]]]
# Cells run side by side, each in a process of its own; results do not depend on it.
_EXECUTION = {"engine": "inline", "nodes": 1}


class RecipeError(ConfigError):
    """A recipe that cannot be run; one line per mistake."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ScaleSettings(_Strict):
    """How a scale differs from the recipe at full size."""

    note: str = Field(description="what is smaller than in the paper, for the report")
    base: dict[str, Value] = {}
    cross: dict[str, list[Choice]] = {}


class Claim(_Strict):
    """What the results should show: a mean that is lower than others, wherever the claim applies.

    Attributes:
        text: the claim, in words.
        lower: whose metric is lower: a label on one axis or several.
        than: the others, by the axes that `lower` names: a label or a list; an axis that is left out
            keeps the label it has in `lower`. Empty for all others on those axes.
        where: restricts other axes to a label or a list; the claim is judged at every place that is left.
        by: at least how much lower; negative for "not higher by more than".
    """

    text: str
    lower: dict[str, Value]
    than: dict[str, Value | list[Value]] = {}
    where: dict[str, Value | list[Value]] = {}
    by: float = 0.0


class Recipe(_Strict):
    """What to run, and how to show it.

    Attributes:
        title: heading of the report.
        reproduces: the table or figure of a paper, e.g. "STRIKE, table 1".
        about: a paragraph for the report.
        metric: key of result.json that the tables show.
        also: further numbers that get tables and curves, e.g. ``train-loss`` or a diagnostic.
        best: which value of a row is printed in bold.
        rows: axis of the tables' rows.
        columns: axis of the tables' columns.
        imports: modules to import first, for the rules, attacks, ... that they register.
        base: options of every run.
        cross: axis -> its values; every combination is a run. A value is an option's value, or a table
            of several options with a ``label``. Of ``tries``, an option with a list of values to search,
            the tables show the one with the lowest mean: that with which an attack did the most harm.
        exclude: combinations (axis -> label) that are left out, each with a ``why``.
        paper: the paper's own numbers: axis -> label, and the metric's value, or a table of it by the
            labels of the columns.
        tolerance: how far from the paper's number counts as reproduced; 0 to pass no verdict.
        claim: what the results should show.
        quick: the same job in minutes on two cores.
    """

    title: str
    reproduces: str = ""
    about: str = ""
    metric: str = "accuracy"
    also: list[str] = []
    best: Literal["highest", "lowest"] = "highest"
    rows: str = "attack"
    columns: str = "strategy"
    imports: list[str] = []
    base: dict[str, Value] = {}
    cross: dict[str, list[Choice]]
    exclude: list[dict[str, Value]] = []
    paper: list[dict[str, Value | dict[str, float]]] = []
    tolerance: float = 0.0
    claim: list[Claim] = []
    quick: ScaleSettings | None = None

    def papers_values(self) -> Iterator[dict[str, Value]]:
        """The paper's numbers one by one: axis -> label, and the metric's value."""
        for known in self.paper:
            where = {axis: label for axis, label in known.items() if not isinstance(label, dict)}
            by_column = known.get(self.metric)
            if not isinstance(by_column, dict):
                yield where
                continue
            for column, value in by_column.items():
                yield {**where, self.columns: column, self.metric: value}


class Cell(NamedTuple):
    """One run of a recipe: its label on every axis, its configuration, and what is tried in it."""

    labels: dict[str, str]
    config: Config
    tried: str = ""


@dataclass(frozen=True)
class Plan:
    """A recipe at one scale, with all of its runs.

    Attributes:
        name: the recipe's file name without suffix.
        scale: "full" or "quick".
        recipe: the recipe.
        source: its text.
        cells: the runs, in the order of the axes.
        axes: axis -> labels.
        excluded: how many combinations the recipe leaves out.
        note: what is smaller than at full size.
    """

    name: str
    scale: Scale
    recipe: Recipe
    source: str
    cells: list[Cell]
    axes: dict[str, list[str]]
    excluded: int
    note: str

    def folder(self, out: str | Path) -> Path:
        """Where the runs' folders are."""
        return Path(out) / self.name / self.scale


def load_plan(path: Path, scale: Scale = "full", out: str = "runs", imports: Sequence[str] = ()) -> Plan:
    """Read a recipe and expand it.

    Args:
        path: of the recipe.
        scale: full or quick.
        out: folder for results.
        imports: modules to import before those that the recipe names.

    Raises:
        RecipeError: unreadable, an unknown key, or impossible combinations: all of them at once.
    """
    try:
        source = path.read_text()
        recipe = Recipe.model_validate(tomllib.loads(source))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path}: {error}") from None
    except ValidationError as error:
        raise RecipeError("\n".join(f"{path}: {_where(e)}: {e['msg']}" for e in error.errors())) from None
    try:
        return _expand(path.stem, recipe, source, scale, out, imports)
    except RecipeError as error:
        raise RecipeError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from None


def find_recipes(path: Path) -> list[Path]:
    """The recipe itself, or all below a folder, sorted.

    Raises:
        RecipeError: there is none, or two have the same name, by which their results go.
    """
    found = sorted(path.rglob("*.toml")) if path.is_dir() else [path] if path.is_file() else []
    if not found:
        raise RecipeError(f"no recipe at {path}")
    names: dict[str, Path] = {}
    for recipe in found:
        if (other := names.setdefault(recipe.stem, recipe)) != recipe:
            raise RecipeError(f"{other} and {recipe} have the same name: their results would be mixed up")
    return found


def select(cells: Sequence[Cell], axes: Mapping[str, Sequence[str]], only: Iterable[str]) -> list[Cell]:
    """The cells that match all of ``axis=label`` (``axis=label1,label2`` for either).

    Raises:
        RecipeError: an axis or label that the recipe does not have.
    """
    chosen = list(cells)
    for condition in only:
        axis, _, wanted = condition.partition("=")
        if axis not in axes:
            raise RecipeError(f"only: {unknown_text('axis', axis, axes)}")
        labels = [label.strip() for label in wanted.split(",")]
        for label in labels:
            if label not in axes[axis]:
                raise RecipeError(f"only: {unknown_text(axis, label, axes[axis])}")
        chosen = [cell for cell in chosen if cell.labels[axis] in labels]
    return chosen


def _expand(name: str, recipe: Recipe, source: str, scale: Scale, out: str, imports: Sequence[str]) -> Plan:
    base, cross, note = dict(recipe.base), dict(recipe.cross), ""
    if scale == "quick":
        if recipe.quick is None:
            raise RecipeError("there is no quick scale")
        base.update(recipe.quick.base)
        cross.update(recipe.quick.cross)
        note = recipe.quick.note
    choices = {axis: [_choice(axis, value) for value in values] for axis, values in cross.items()}
    axes = {axis: [label for label, _ in values] for axis, values in choices.items()}
    mistakes = [*_misplaced(recipe, axes), *_misclaimed(recipe, axes)]
    if fault := name_fault(name):
        raise RecipeError(f"the recipe's file gives its runs their name: {fault} (got {name!r:.60})")
    cells, excluded = [], 0
    faults: dict[str, list[str]] = {}
    for combination in itertools.product(*choices.values()):
        labels = {axis: label for axis, (label, _) in zip(choices, combination, strict=True)}
        if any(_matches(labels, rule) for rule in recipe.exclude):
            excluded += 1
            continue
        for tries in itertools.product(*(tries for _, tries in combination)):
            options: dict[str, Any] = {
                **_EXECUTION,
                "imports": [*imports, *recipe.imports],
                **base,
                "out": out,
                "name": f"{name}/{scale}",
            }
            for _, own in tries:
                options.update(own)
            try:
                config = make_config({key.replace("-", "_"): value for key, value in options.items()})
            except ConfigError as error:
                for line in str(error).splitlines():
                    faults.setdefault(line, []).append(", ".join(f"{k}={v}" for k, v in labels.items()))
                continue
            cells.append(Cell(labels, config, ", ".join(tried for tried, _ in tries if tried)))
    mistakes += [f"{fault} (in {_some(where)})" for fault, where in faults.items()]
    if mistakes:
        raise RecipeError("\n".join(mistakes))
    return Plan(name, scale, recipe, source, cells, axes, excluded, note)


def _choice(axis: str, value: Choice) -> tuple[str, list[tuple[str, dict[str, Any]]]]:
    """The label of a value on an axis, and its options: as many as there are tries, each with its name."""
    if not isinstance(value, Mapping):
        return str(value), [("", {axis: value})]
    options = {key: own for key, own in value.items() if key not in ("label", "tries")}
    label = str(value.get("label", options.get(axis, "")))
    tries = value.get("tries")
    if not isinstance(tries, Mapping):
        return label, [("", options)]
    return label, [(str(tried), {**options, key: tried}) for key, values in tries.items() for tried in values]


def _labels(recipe: Recipe, axes: Mapping[str, Sequence[str]]) -> dict[str, set[str]]:
    """Axis -> the labels that it has, at this scale or in full."""
    full = {axis: {_choice(axis, v)[0] for v in values} for axis, values in recipe.cross.items()}
    return {axis: full.get(axis, set()) | set(labels) for axis, labels in axes.items()}


def _not_there(what: str, axis: str, label: object, known: Mapping[str, set[str]]) -> list[str]:
    if axis not in known:
        return [f"{what}: {unknown_text('axis', axis, known)}"]
    return [] if str(label) in known[axis] else [f"{what}: {unknown_text(axis, str(label), known[axis])}"]


def _misplaced(recipe: Recipe, axes: Mapping[str, Sequence[str]]) -> list[str]:
    """Axes without values, equal labels, and whatever names an axis or a label that is not there."""
    mistakes = [f"cross: {axis} has no values" for axis, labels in axes.items() if not labels]
    for axis, labels in axes.items():
        mistakes += [f"cross: {axis} has two values labelled {x!r}" for x in {*labels} if labels.count(x) > 1]
    for what, axis in (("rows", recipe.rows), ("columns", recipe.columns)):
        if axis not in axes:
            mistakes.append(f"{what}: {unknown_text('axis', axis, axes)}")
    known = _labels(recipe, axes)
    papers = list(recipe.papers_values())
    for what, rules, beside in (("exclude", recipe.exclude, "why"), ("paper", papers, recipe.metric)):
        for rule in rules:
            if beside not in rule:
                mistakes.append(f"{what}: {rule} has no {beside!r}")
            for axis, label in rule.items():
                if axis != beside:
                    mistakes += _not_there(what, axis, label, known)
    return mistakes


def _misclaimed(recipe: Recipe, axes: Mapping[str, Sequence[str]]) -> list[str]:
    """Claims that name what is not there, or that compare what is not on the same axes."""
    mistakes, known = [], _labels(recipe, axes)
    for claim in recipe.claim:
        what = f"claim {claim.text!r}"
        for part in (claim.lower, claim.than, claim.where):
            for axis, labels in part.items():
                for label in labels if isinstance(labels, list) else [labels]:
                    mistakes += _not_there(what, axis, label, known)
        if SEED in claim.lower or not claim.lower:
            mistakes.append(f"{what}: 'lower' must name an axis other than the seed")
        mistakes += [
            f"{what}: 'than' names {axis!r}, 'lower' does not" for axis in claim.than.keys() - claim.lower
        ]
        mistakes += [
            f"{what}: 'where' and 'lower' both name {axis!r}" for axis in claim.where.keys() & claim.lower
        ]
    return mistakes


def _matches(labels: Mapping[str, str], rule: Mapping[str, Value]) -> bool:
    return all(labels.get(axis) == str(label) for axis, label in rule.items() if axis != "why")


def _some(cells: Sequence[str], most: int = 3) -> str:
    return "; ".join(cells[:most]) + (f"; and {len(cells) - most} more" if len(cells) > most else "")


def _where(error: Any) -> str:
    return ".".join(str(part) for part in error["loc"]) or "recipe"
