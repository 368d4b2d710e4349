"""Options of a run on the command line: the fields of the tasks' configurations, listed nowhere else."""

import inspect
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from byzflower.server.config.tasks import CLASSIFICATION, TASKS

# The default job shows an attack that a plain mean does not survive and Multi-Krum does.
# Clipped gradients keep benign clients finite after FedAvg has lost the model.
DEMOS: dict[str, dict[str, Any]] = {
    CLASSIFICATION: {"attack_options": "eps=10", "clip_norm": 10.0, "strategy": "fedavg,multikrum"},
    "recommendation": {"strategy": "mean,median"},
}
_TASK_HELP = f"what is learned: {', '.join(TASKS)} [default: {CLASSIFICATION}]"
# On every command.
_IMPORT = typer.Option(
    "--import", "--imports", help="module to import first, for what it registers; again for more"
)
Imports = Annotated[list[str] | None, _IMPORT]


def run_options() -> list[inspect.Parameter]:
    """The parameters of the command without a name."""
    options = {"task": _parameter("task", str | None, None, typer.Option(help=_TASK_HELP))}
    for task, kind in TASKS.items():
        for name, field in kind.model_fields.items():
            options.setdefault(name, _option(name, field, task))
    options["imports"] = _parameter("imports", list[str] | None, None, _IMPORT)
    extra = [
        _parameter(
            "config",
            Path | None,
            None,
            typer.Option("--config", help="TOML file with options, e.g. a run's config.toml"),
        ),
        _parameter("fresh", bool, False, typer.Option("--fresh", help="run again what is finished already")),
        _parameter(
            "list_names",
            bool,
            False,
            typer.Option("--list", help="show every strategy, attack, data set and model"),
        ),
    ]
    return [*options.values(), *extra]


def _parameter(name: str, kind: Any, default: object, option: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )


def _option(name: str, field: Any, task: str) -> inspect.Parameter:
    """The command-line option of one field of a task's configuration."""
    kind: Any = field.annotation
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(k for k in get_args(kind) if k is not type(None))
    if name == "strategy" or get_origin(kind) in (dict, tuple):
        kind = str
    help_text = field.description
    default = DEMOS[task]["strategy"] if name == "strategy" else field.default
    if name == "strategy":
        help_text = "aggregation rules to run and compare, with commas between (see --list)"
    if get_origin(kind) is Literal:
        help_text += f": {', '.join(map(str, get_args(kind)))}"
        kind = str
    flag = f"--{name.replace('_', '-')}"
    panel = None if task == CLASSIFICATION else f"Only with --task {task}"
    option = typer.Option(
        flag,
        help=f"{help_text} [default: {_shown(default)}]",
        show_default=False,
        rich_help_panel=panel,
    )
    return _parameter(name, kind | None, None, option)


def _shown(default: object) -> str:
    return "none" if default in ("", None, {}, ()) else str(default)
