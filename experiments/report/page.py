"""A report as one HTML page: no network, light and dark, narrow and wide."""

from collections.abc import Iterator, Sequence

from byzflower.experiments.claims import verdicts
from byzflower.experiments.report.escape import html
from byzflower.experiments.report.figures import ROUND_PICTURES, curves, heat_map, to_svg
from byzflower.experiments.report.results import Entry, Report, Table

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --paper: #ffffff; --soft: #667080; --line: #d9dee5;
  --best: #0a7a4b; --card: #f6f8fa; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --paper: #14171b; --soft: #9aa4b2;
  --line: #323941; --best: #4cc38a; --card: #1c2126; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 70rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p { max-width: 46rem; margin: .4rem 0; }
.soft { color: var(--soft); }
.facts { display: flex; flex-wrap: wrap; gap: .5rem; margin: 1rem 0; padding: 0; list-style: none; }
.facts li { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .25rem .7rem; font-size: .9rem; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: .5rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .7rem; text-align: right; white-space: nowrap; border-top: 1px solid var(--line); }
thead th { border-top: 0; background: var(--card); font-weight: 600; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--card); }
td small { display: block; color: var(--soft); font-size: .78rem; }
td.best { color: var(--best); font-weight: 700; }
td.failed { color: #d1453b; }
figure { margin: .5rem 0; }
figure svg { max-width: 100%; height: auto; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--card); padding: .7rem;
  border-radius: .5rem; font-size: .85rem; }
summary { cursor: pointer; }
@media (max-width: 30rem) { body { font-size: 15px; padding: 1rem .7rem 3rem; }
  th, td { padding: .35rem .5rem; font-size: .85rem; } figure { overflow-x: auto; }
  .curves svg { min-width: 36rem; } }
"""

# What else is shown below the recipe's own metric, where there are numbers of it.
OTHER_METRICS = (
    "HR@5",
    "nDCG@5",
    "nDCG@10",
    "precision",
    "recall",
    "kept",
    "quarantined",
    "MB up",
    "seconds a round",
)


def to_html(report: Report) -> str:
    """The whole page."""
    body = "\n".join(_sections(report))
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{html(report.recipe.title)}</title><style>{_STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def _sections(report: Report) -> Iterator[str]:
    recipe = report.recipe
    yield f"<h1>{html(recipe.title)}</h1>"
    if recipe.about:
        yield f"<p>{html(recipe.about)}</p>"
    done = sum(run.result is not None for run in report.runs)
    facts = [f"{done} of {len(report.runs)} runs", report.name]
    if recipe.reproduces:
        facts.insert(0, f"reproduces {recipe.reproduces}")
    if report.failures:
        facts.append(f"{len(report.failures)} failed")
    yield "<ul class='facts'>" + "".join(f"<li>{html(fact)}</li>" for fact in facts) + "</ul>"
    if report.note:
        yield f"<p class='soft'>Smaller than the original: {html(report.note)}</p>"
    yield from _claims(report)
    for panel in report.panels():
        yield from _panel(report, panel)
    for run in report.runs:
        for draw in ROUND_PICTURES.values():
            picture = draw((run.result or {}).get("history", ()), run.place)
            if picture is not None:
                yield f"<figure>{to_svg(picture)}</figure>"
    if report.failures:
        yield "<h2>Failed runs</h2>"
        for run in report.failures:
            yield f"<p>{html(run.place)}</p><pre>{html(run.error)}</pre>"


def _claims(report: Report) -> Iterator[str]:
    if report.recipe.claim:
        yield "<h2>Claims</h2>"
    for claim in report.recipe.claim:
        found = verdicts(report, claim)
        lines = (
            "".join(f"<li>{html(str(verdict))}</li>" for verdict in found)
            or "<li>not judged: no results of both sides</li>"
        )
        yield f"<p>{html(claim.text)}</p><ul>{lines}</ul>"


def _panel(report: Report, panel: dict[str, str]) -> Iterator[str]:
    recipe = report.recipe
    main = report.table(recipe.metric, panel)
    yield from _section(report, panel, recipe.metric)
    if (figure := heat_map(main)) is not None:
        yield f"<figure>{to_svg(figure)}</figure>"
    for metric in recipe.also:
        yield from _section(report, panel, metric)
    yield from _folded(
        "How the attack lies among the benign updates", report, panel, report.diagnostics, True
    )
    yield from _folded("Other scores, detection, traffic and time", report, panel, OTHER_METRICS, False)


def _section(report: Report, panel: dict[str, str], metric: str, drawn: bool = True) -> Iterator[str]:
    table = report.table(metric, panel)
    if metric != report.recipe.metric and table.uniform is not None:
        yield f"<p>{html(table.title)}: {table.uniform} everywhere.</p>"
        return
    yield f"<h2>{html(table.title)}</h2>{_table(table, report.recipe.rows)}"
    if drawn and (figure := curves(report, panel, metric)) is not None:
        yield f"<figure class='curves'>{to_svg(figure)}</figure>"


def _folded(
    summary: str, report: Report, panel: dict[str, str], metrics: Sequence[str], drawn: bool
) -> Iterator[str]:
    shown = [m for m in metrics if m not in report.recipe.also and not report.table(m, panel).is_empty]
    if shown:
        yield f"<details><summary>{summary}</summary>"
        for metric in shown:
            yield from _section(report, panel, metric, drawn)
        yield "</details>"


def _table(table: Table, corner: str) -> str:
    head = "".join(f"<th scope='col'>{html(name)}</th>" for name in [corner, *table.columns])
    rows = "".join(
        f"<tr><th scope='row'>{html(row)}</th>"
        + "".join(_cell(table.entries[row, column]) for column in table.columns)
        + "</tr>"
        for row in table.rows
    )
    return f"<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"


def _cell(entry: Entry) -> str:
    text = entry.missing if entry.value is None else str(entry.value)
    kind = " class='best'" if entry.best else f" class='{entry.missing}'" if text == "failed" else ""
    paper = ""
    if entry.paper is not None:
        difference = "" if entry.difference is None else f" ({entry.difference:+.3f})"
        paper = f"<small>paper {entry.paper:.3f}{difference}</small>"
    tried = f"<small>{html(entry.tried)}</small>" if entry.tried else ""
    return f"<td{kind}>{html(text)}{tried}{paper}</td>"
