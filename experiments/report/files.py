"""A report as files: Markdown, tables (CSV, LaTeX), figures (PNG, SVG) and a page."""

from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

from byzflower.experiments.claims import verdicts
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
from byzflower.experiments.report.results import Report
from byzflower.experiments.report.tables import to_csv, to_latex, to_markdown


def write_report(loaded: Report, target: Path, page: Path | None = None) -> str:
    """Write all of a report; returns its text.

    Args:
        loaded: the runs.
        target: folder for ``report.md``, tables and figures.
        page: where to write a self-contained HTML page; None for none.
    """
    target.mkdir(parents=True, exist_ok=True)
    text = markdown(loaded)
    (target / "report.md").write_text(text, encoding="utf-8")
    _write_tables(loaded, target)
    _write_figures(loaded, target)
    if page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(to_html(loaded), encoding="utf-8")
    return text


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
