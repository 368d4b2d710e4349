"""The command ``report``: tables and figures of runs."""

from pathlib import Path
from typing import Annotated

import typer

from byzflower.cli.console import console, names_of_mistakes, say
from byzflower.cli.options import Imports
from byzflower.experiments.report.results import load_report
from byzflower.plugins import import_modules, module_names


def report(
    folder: Annotated[Path, typer.Argument(help="a grid's folder, or any folder with runs in it")],
    html: Annotated[Path | None, typer.Option(help="also write a self-contained page")] = None,
    to: Annotated[Path | None, typer.Option(help="where to write; default <folder>/report")] = None,
    imports: Imports = None,
) -> None:
    """Write tables (Markdown, CSV, LaTeX) and figures (PNG, SVG) of runs."""
    with names_of_mistakes():
        import_modules(module_names(imports or ()))
        loaded = load_report(folder)
    # Late: matplotlib takes a second, which --help should not cost.
    from byzflower.experiments.report.files import write_report

    target = to or folder / "report"
    console.print(write_report(loaded, target, html), soft_wrap=True)
    say(f"written: {target}{'' if html is None else f', {html}'}")
