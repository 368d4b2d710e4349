"""The command without a name: train under attack, once per strategy."""

import inspect
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from byzflower.cli.console import names_of_mistakes
from byzflower.cli.names import list_names as show_names
from byzflower.cli.options import DEMOS, run_options
from byzflower.plugins import import_modules, module_names
from byzflower.server.config.checks import ConfigError
from byzflower.server.config.tasks import CLASSIFICATION, make_config


def run(fresh: bool, list_names: bool, config: Path | None, **options: Any) -> None:
    """Train federated models under attack, once per strategy, and compare the defences."""
    given = {name: value for name, value in options.items() if value is not None}
    with names_of_mistakes():
        if list_names:
            import_modules(module_names(given.get("imports", ())))
            show_names()
            return
        given = {**_read(config), **given}
        demo = DEMOS.get(given.get("task", CLASSIFICATION), {})
        given = {**({} if config is not None or "attack" in given else demo), **given}
        strategies = given.pop("strategy", demo.get("strategy", "")).split(",")
        configs = [make_config({**given, "strategy": name.strip()}) for name in strategies]
        # Late: what has come so far (help, names, most mistakes) needs neither torch nor Flower.
        from byzflower.cli.comparison import compare

        results = compare(configs, fresh)
    if results is None:
        raise typer.Exit(130)
    if any("model" not in result for result in results):
        raise typer.Exit(1)


def run_command() -> Callable[..., None]:
    """`run`, with a parameter for every option of every task."""

    def command(ctx: typer.Context, **options: Any) -> None:
        if ctx.invoked_subcommand is None:
            run(**options)

    command.__doc__ = run.__doc__
    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    command.__signature__ = inspect.Signature([context, *run_options()])  # type: ignore[attr-defined]
    return command


def _read(config: Path | None) -> dict[str, Any]:
    """Options from a TOML file, such as the config.toml of an earlier run."""
    if config is None:
        return {}
    try:
        return {k.replace("-", "_"): v for k, v in tomllib.loads(config.read_text()).items()}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"config: {config} cannot be read: {error}") from None
