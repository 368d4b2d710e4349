"""The command ``runs``: find runs that an earlier version named, and rename them."""

from pathlib import Path
from typing import Annotated

import typer

from byzflower.cli.console import complain, names_of_mistakes, say
from byzflower.cli.options import Imports
from byzflower.plugins import import_modules, module_names
from byzflower.server.config.checks import ConfigError


def runs(
    folder: Annotated[Path, typer.Argument(help="folder with runs, or with grids of them")] = Path("runs"),
    move: Annotated[bool, typer.Option("--move", help="rename them; nothing is overwritten")] = False,
    imports: Imports = None,
) -> None:
    """Find runs whose folders have names of an earlier version, and rename them if asked."""
    with names_of_mistakes():
        import_modules(module_names(imports or ()))
        if not folder.is_dir():
            raise ConfigError(f"runs: there is no folder {folder}")
        # Late: checkpoints need torch, --help does not.
        from byzflower.experiments import renaming

        found, faults = 0, 0
        for run in renaming.old_runs(folder):
            try:
                if isinstance(run, Exception):
                    raise run
                if move:
                    renaming.move(run)
                say(f"{run.folder} -> {run.target.name}")
                found += 1
            except ConfigError as error:
                complain(str(error))
                faults += 1
    did = "have been renamed" if move else "have names of an earlier version (--move renames them)"
    say(f"{found} runs {did}, {faults} cannot be")
    if faults:
        raise typer.Exit(1)
