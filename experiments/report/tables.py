"""Tables as Markdown, CSV and LaTeX."""

import csv
import io
from collections.abc import Callable

from byzflower.experiments.report import escape
from byzflower.experiments.report.results import Entry, Table


def to_markdown(table: Table, corner: str) -> str:
    """A pipe table; the best of a row in bold, the paper's value and the difference in brackets."""
    lines = [f"| {' | '.join(map(escape.markdown, [corner, *table.columns]))} |"]
    lines.append("|---" * (1 + len(table.columns)) + "|")
    for row in table.rows:
        cells = [_text(table.entries[row, c], "**{}**", escape.markdown) for c in table.columns]
        lines.append(f"| {escape.markdown(row)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def to_csv(table: Table, corner: str) -> str:
    """One line per entry: row, column, mean, std, number of seeds, the paper's value, the difference."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [escape.csv_cell(corner), "column", "metric", "mean", "std", "seeds", "paper", "difference"]
    )
    for (row, column), entry in table.entries.items():
        value = entry.value
        numbers = ["", "", 0] if value is None else [value.mean, value.std, value.seeds]
        paper = ["" if x is None else x for x in (entry.paper, entry.difference)]
        names = map(escape.csv_cell, (row, column, table.metric))
        writer.writerow([*names, *numbers, *paper])
    return out.getvalue()


def to_latex(table: Table, corner: str) -> str:
    """A booktabs tabular."""
    lines = [rf"\begin{{tabular}}{{l{'c' * len(table.columns)}}}", r"\toprule"]
    lines.append(" & ".join(map(escape.tex, [corner, *table.columns])) + r" \\")
    lines.append(r"\midrule")
    for row in table.rows:
        cells = [_text(table.entries[row, c], r"\textbf{{{}}}", escape.tex) for c in table.columns]
        tex = [cell.replace("±", r"$\pm$").replace("…", r"\dots") for cell in cells]
        lines.append(" & ".join([escape.tex(row), *tex]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def _text(entry: Entry, bold: str, escaped: Callable[[str], str]) -> str:
    text = entry.missing if entry.value is None else str(entry.value)
    if entry.best:
        text = bold.format(text)
    return text + (f" [{escaped(entry.tried)}]" if entry.tried else "") + paper_text(entry)


def paper_text(entry: Entry) -> str:
    """The paper's value and the difference, e.g. "(paper 0.530, +0.012)", or nothing."""
    if entry.paper is None:
        return ""
    difference = "" if entry.difference is None else f", {entry.difference:+.3f}"
    verdict = f", {entry.verdict}" if entry.verdict else ""
    return f" (paper {entry.paper:.3f}{difference}{verdict})"
