"""Figures of a report: accuracy over rounds, and a heat map of attacks against defences."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from byzflower.experiments.report import escape
from byzflower.experiments.report.results import Report, Table, number

# A colour that nothing else has; in SVG it becomes the text colour of the page around it.
PAGE_INK = "#010203"


def has_curves(report: Report, panel: Mapping[str, str], metric: str) -> bool:
    """Whether there are results to draw `curves` of."""
    return any(_histories(report, panel, row, metric) for row in report.axes[report.recipe.rows])


def curves(report: Report, panel: Mapping[str, str], metric: str, ink: str = PAGE_INK) -> Figure | None:
    """A metric over rounds: a small figure per row, a line per column, mean and std over seeds."""
    histories = {row: _histories(report, panel, row, metric) for row in report.axes[report.recipe.rows]}
    rows = [row for row, found in histories.items() if found]
    if not rows:
        return None
    wide = 2 if len(rows) in (2, 4) else min(len(rows), 3)
    high = math.ceil(len(rows) / wide)
    with _style(ink):
        figure = _figure(3.4 * wide, 2.5 * high + 0.5)
        grid: Any = figure.subplots(high, wide, squeeze=False, sharex=True, sharey=True)
        for place, row in zip(grid.flat, rows, strict=False):
            for i, (column, (rounds, scores)) in enumerate(histories[row].items()):
                mean, std = scores.mean(axis=0), scores.std(axis=0)
                place.plot(rounds, mean, label=escape.label(column), linewidth=1.5, color=f"C{i}")
                place.fill_between(rounds, mean - std, mean + std, alpha=0.2, color=f"C{i}", linewidth=0)
            place.set_title(escape.label(row), fontsize="medium")
            place.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            place.grid(alpha=0.25)
        for number, place in enumerate(grid.flat):
            place.set_visible(number < len(rows))
            if number + wide >= len(rows):
                place.tick_params(labelbottom=True)
        figure.supxlabel("round", fontsize="medium")
        figure.supylabel(escape.label(metric.removeprefix("best_")), fontsize="medium")
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 5), frameon=False)
    return figure


def _histories(
    report: Report, panel: Mapping[str, str], row: str, metric: str
) -> dict[str, tuple[list[int], np.ndarray[Any, Any]]]:
    """Column -> rounds, and (seeds, rounds) values where all seeds have the same rounds."""
    found = {}
    for column in report.axes[report.recipe.columns]:
        runs = report.shown({**panel, report.recipe.rows: row, report.recipe.columns: column})
        series = []
        for run in runs:
            history = (run.result or {}).get("history", [])
            points = [(r["round"], value) for r in history if (value := number(r, metric)) is not None]
            if points:
                series.append(points)
        series = [points for points in series if len(points) == len(series[0])]
        if series:
            found[column] = ([x for x, _ in series[0]], np.array([[y for _, y in s] for s in series]))
    return found


def heat_map(table: Table, ink: str = PAGE_INK) -> Figure | None:
    """Means of a table as colours, with the numbers on them."""
    if table.is_empty:
        return None
    rows, columns = ([*map(escape.label, names)] for names in (table.rows, table.columns))
    values = np.full((len(rows), len(columns)), np.nan)
    for i, row in enumerate(table.rows):
        for j, column in enumerate(table.columns):
            if (value := table.entries[row, column].value) is not None:
                values[i, j] = value.mean
    with _style(ink):
        figure = _figure(1.6 + 0.85 * len(table.columns), 1.3 + 0.45 * len(table.rows))
        axes = figure.add_subplot()
        low, high = (
            (0.0, 1.0) if np.nanmax(values) <= 1 else (float(np.nanmin(values)), float(np.nanmax(values)))
        )
        axes.imshow(values, cmap="viridis", vmin=low, vmax=high, aspect="auto")
        axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
        axes.set_yticks(range(len(rows)), rows)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        for (i, j), value in np.ndenumerate(values):
            if not np.isnan(value):
                dark = (value - low) < 0.6 * (high - low)
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if dark else "black")
    return figure


def skew_picture(history: Sequence[Mapping[str, Any]], title: str, ink: str = PAGE_INK) -> Figure | None:
    """Embedded rounds side by side: the skewed majority of the benign updates, the others, their mean."""
    embedded = [(r["round"], r["embedding"]) for r in history if r.get("embedding")]
    if not embedded:
        return None
    wide = min(len(embedded), 3)
    high = math.ceil(len(embedded) / wide)
    with _style(ink):
        figure = _figure(3.2 * wide, 2.9 * high + 0.6)
        grid: Any = figure.subplots(high, wide, squeeze=False)
        for place in grid.flat[len(embedded) :]:
            place.set_visible(False)
        for place, (server_round, embedding) in zip(grid.flat, embedded, strict=False):
            points = np.array(embedding["points"])
            majority = np.isin(np.arange(len(points)), embedding["majority"])
            place.scatter(*points[majority].T, s=22, label="skewed majority")
            place.scatter(*points[~majority].T, s=22, label="other benign updates")
            place.scatter(
                *embedding["mean"], s=120, marker="*", color="crimson", label="mean of all", zorder=3
            )
            place.set_title(f"round {server_round}", fontsize="medium")
            place.set_xticks([])
            place.set_yticks([])
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        figure.suptitle(escape.label(title), fontsize="medium")
    return figure


def planes_picture(history: Sequence[Mapping[str, Any]], title: str, ink: str = PAGE_INK) -> Figure | None:
    """Parameters and gradients of clients by their principal components, attackers marked: a row a round."""
    drawn = [(r["round"], r["planes"]) for r in history if r.get("planes")]
    if not drawn:
        return None
    with _style(ink):
        figure = _figure(6.4, 2.9 * len(drawn) + 0.6)
        grid: Any = figure.subplots(len(drawn), 2, squeeze=False)
        for places, (server_round, planes) in zip(grid, drawn, strict=True):
            for place, what in zip(places, ("parameters", "gradients"), strict=True):
                points = np.array(planes[what])
                byzantine = np.isin(np.arange(len(points)), planes["byzantine"])
                place.scatter(*points[~byzantine].T, s=22, label="benign")
                place.scatter(*points[byzantine].T, s=26, marker="^", label="Byzantine")
                place.set_title(f"{what}, round {server_round}", fontsize="medium")
                place.set_xticks([])
                place.set_yticks([])
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
        figure.suptitle(escape.label(title), fontsize="medium")
    return figure


# Pictures of single rounds, by the name of their files; most runs have none of them.
ROUND_PICTURES = {"skew": skew_picture, "planes": planes_picture}


def to_svg(figure: Figure) -> str:
    """An SVG element for a page, in the page's own text colour."""
    out = io.BytesIO()
    with _style(PAGE_INK):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue().decode()
    return text[text.index("<svg") :].replace(PAGE_INK, "currentColor")


def to_png(figure: Figure) -> bytes:
    """A picture with a white background."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=150, facecolor="white")
    return out.getvalue()


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _style(ink: str) -> Any:
    names = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    settings: Any = dict.fromkeys(names, ink)
    return mpl.rc_context({**settings, "svg.fonttype": "none", "svg.hashsalt": "byzflower"})
