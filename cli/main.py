"""The command line. Its options are the fields of the tasks' configurations; nothing is listed twice."""

import inspect
import logging
import os
import sys
import tomllib
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from byzflower.attacks import ATTACKS, MASK_ATTACKS
from byzflower.attacks.items import ITEM_ATTACKS
from byzflower.cli.console import complain, console, names_of_mistakes, say
from byzflower.cli.tools import grid, redteam, report
from byzflower.clients.recommender.moments import divided_feedback
from byzflower.clients.settings import training_data
from byzflower.datasets import DATASETS, FEEDBACK, class_counts
from byzflower.experiments.report.figures import ROUND_PICTURES, to_png, to_svg
from byzflower.experiments.report.plots import plot_accuracy, plot_partition, plot_similarity, write_partition
from byzflower.experiments.report.vulnerability import plot_popularity, vulnerability
from byzflower.models import MODELS
from byzflower.models.recommenders import PERSONAL, STATELESS
from byzflower.server.config.classification import ConfigError
from byzflower.server.config.recommendation import RecommendationConfig
from byzflower.server.config.tasks import CLASSIFICATION, TASKS, Config, make_config
from byzflower.server.engines.simulation import simulate
from byzflower.server.recorder import Record, Recorder, summarise
from byzflower.strategies import PRE_AGGREGATIONS, STRATEGIES, TooManySkippedRounds
from byzflower.strategies.items import ITEM_STRATEGIES

# The default job shows an attack that a plain mean does not survive and Multi-Krum does.
# Clipped gradients keep honest clients finite after FedAvg has lost the model.
_DEMOS: dict[str, dict[str, Any]] = {
    CLASSIFICATION: {"attack_options": "eps=10", "clip_norm": 10.0, "strategy": "fedavg,multikrum"},
    "recommendation": {"strategy": "mean,median"},
}


def run(fresh: bool, list_names: bool, config: Path | None, **options: Any) -> None:
    """Train federated models under attack, once per strategy, and compare the defences."""
    if list_names:
        _list()
        return
    given = {name: value for name, value in options.items() if value is not None}
    with names_of_mistakes():
        given = {**_read(config), **given}
        demo = _DEMOS.get(given.get("task", CLASSIFICATION), {})
        given = {**({} if config is not None or "attack" in given else demo), **given}
        strategies = given.pop("strategy", demo.get("strategy", "")).split(",")
        configs = [make_config({**given, "strategy": name.strip()}) for name in strategies]
        _check_data(configs[0])
        histories = _run_all(configs, fresh)
    if histories is None:
        raise typer.Exit(130)
    _report(configs, histories)
    if any("model" not in result for result in histories):
        raise typer.Exit(1)


def _read(config: Path | None) -> dict[str, Any]:
    """Options from a TOML file, such as the config.toml of an earlier run."""
    if config is None:
        return {}
    try:
        return {k.replace("-", "_"): v for k, v in tomllib.loads(config.read_text()).items()}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"config: {config} cannot be read: {error}") from None


def _run_all(configs: list[Config], fresh: bool) -> list[Record] | None:
    """Run each configuration; None if the user stopped it."""
    results = []
    for config in configs:
        with _progress() as progress:
            task = progress.add_task(config.strategy, total=config.rounds, score="starting")
            try:
                outcome = simulate(config, _updater(progress, task, config.metrics[0]), fresh=fresh)
            except TooManySkippedRounds as reason:  # the other strategies may fare better
                complain(f"{config.strategy}: {reason}")
                results.append(summarise(Recorder(config).records(), config.metrics))
                continue
            progress.update(task, completed=config.rounds if not outcome.interrupted else None)
        if outcome.interrupted:
            say(f"stopped; the same command goes on from the last finished round: {outcome.recorder.folder}")
            return None
        results.append(outcome.result)
    return results


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description:>12}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[score]}", markup=False),
        TimeRemainingColumn(),
        console=console,
    )


def _updater(progress: Progress, task: Any, metric: str) -> Callable[[Record], None]:
    def update(record: Record) -> None:
        seconds = record.get("seconds", {}).get("round")
        score = "" if record.get(metric) is None else f"{metric} {record[metric]:.3f}"
        pace = "" if seconds is None else f"  {seconds:.2f} s/round"
        progress.update(task, completed=record["round"], score=score + pace)

    return update


def _report(configs: list[Config], results: list[Record]) -> None:
    first = configs[0]
    metric, byzantine = first.metrics[0], len(first.byzantine_ids())
    title = f"{first.dataset}, {first.clients} clients, {byzantine} Byzantine ({first.attack})"
    table = Table(title=title)
    for column in ("strategy", metric, "kept of n", "precision", "recall", "quarantined"):
        table.add_column(column, justify="left" if column == "strategy" else "right")
    for config, result in zip(configs, results, strict=True):
        kept = "all" if result["kept"] is None else f"{result['kept']:.1f} of {config.clients}"
        table.add_row(
            config.strategy,
            _number(result[metric]),
            kept,
            _number(result["precision"]),
            _number(result["recall"]),
            str(result["quarantined"]),
        )
    console.print(table)
    folders = [Recorder(config).folder for config in configs]
    names = [config.strategy for config in configs]
    histories = {name: result["history"] for name, result in zip(names, results, strict=True)}
    picture = plot_accuracy(histories, folders[-1] / "accuracy.png", title, metric)
    for config, folder, result in zip(configs, folders, results, strict=True):
        _draw_rounds(folder, result, f"{title}, {config.strategy}")
        if (similarity := plot_similarity(folder, config.byzantine_ids())) is not None:
            say(f"similarity: {similarity}")
    files = [
        *(("results", folder) for folder in folders),
        ("plot", picture),
        *_about_data(first, folders[-1]),
    ]
    for what, path in files:
        say(f"{what}: {path}")


def _about_data(config: Config, folder: Path) -> list[tuple[str, Path]]:
    """Pictures and tables of the data that the clients had."""
    if isinstance(config, RecommendationConfig):
        report = vulnerability(config.feedback.train.popularity, config.num_byzantine())
        console.print(report.text(), soft_wrap=True)
        return [("popularity", plot_popularity(report, folder / "popularity.png"))]
    if config.recommends:
        return []
    dataset, parts = training_data(config.client_settings())
    counts, byzantine = class_counts(parts, dataset.train_y, dataset.num_classes), config.byzantine_ids()
    return [
        ("partition", plot_partition(counts, folder / "partition.png", byzantine)),
        ("partition", write_partition(counts, folder / "partition.csv", byzantine)),
    ]


def _draw_rounds(folder: Path, result: Record, title: str) -> None:
    """Draw the rounds that were to be laid out in the plane."""
    for name, draw in ROUND_PICTURES.items():
        if (figure := draw(result["history"], title, "black")) is not None:
            (folder / f"{name}.png").write_bytes(to_png(figure))
            (folder / f"{name}.svg").write_text(to_svg(figure), encoding="utf-8")
            path = folder / f"{name}.png"
            say(f"{name}: {path}, {name}.svg")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _check_data(config: Config) -> None:
    """Load (and, the first time, prepare) the data before any engine starts."""
    if isinstance(config, RecommendationConfig):
        return
    try:
        (divided_feedback if config.recommends else training_data)(config.client_settings())
    except ValueError as error:
        raise ConfigError(f"clients/partition: {error}") from None


def _list() -> None:
    registries: dict[str, dict[str, Any]] = {
        "strategies": STRATEGIES,
        "pre-aggregations": PRE_AGGREGATIONS,
        "attacks": ATTACKS,
        "mask attacks": MASK_ATTACKS,
        "datasets": DATASETS,
        "datasets of recommenders": FEEDBACK,
        "models": MODELS,
        "models of recommenders (strategies arfrs, srfrs, agrfrs, rrfrs)": STATELESS,
        "models (--task recommendation)": PERSONAL,
        "strategies (--task recommendation)": ITEM_STRATEGIES,
        "attacks (--task recommendation)": ITEM_ATTACKS,
    }
    for kind, registry in registries.items():
        table = Table(title=kind, title_justify="left", show_header=False, box=None)
        for name in sorted(registry):
            summary = (inspect.getdoc(registry[name]) or "").splitlines()[0]
            table.add_row(Text(name, "bold"), summary)
        console.print(table)


def _option(name: str, field: Any, task: str) -> inspect.Parameter:
    """The command-line option of one field of a task's configuration."""
    kind: Any = field.annotation
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(k for k in get_args(kind) if k is not type(None))
    if name == "strategy" or get_origin(kind) in (dict, tuple):
        kind = str
    help_text = field.description
    default = _DEMOS[task]["strategy"] if name == "strategy" else field.default
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
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def _shown(default: object) -> str:
    return "none" if default in ("", None, {}, ()) else str(default)


def _command() -> Callable[..., None]:
    def command(ctx: typer.Context, **options: Any) -> None:
        if ctx.invoked_subcommand is None:
            run(**options)

    command.__doc__ = run.__doc__
    extra = [
        inspect.Parameter(
            "config",
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                Path | None,
                typer.Option("--config", help="TOML file with options, e.g. a run's config.toml"),
            ],
        ),
        inspect.Parameter(
            "fresh",
            inspect.Parameter.KEYWORD_ONLY,
            default=False,
            annotation=Annotated[bool, typer.Option("--fresh", help="run again what is finished already")],
        ),
        inspect.Parameter(
            "list_names",
            inspect.Parameter.KEYWORD_ONLY,
            default=False,
            annotation=Annotated[
                bool, typer.Option("--list", help="show every strategy, attack, data set and model")
            ],
        ),
    ]
    task = inspect.Parameter(
        "task",
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            str | None, typer.Option(help=f"what is learned: {', '.join(TASKS)} [default: {CLASSIFICATION}]")
        ],
    )
    options: dict[str, inspect.Parameter] = {"task": task}
    for name, kind in TASKS.items():
        for field_name, field in kind.model_fields.items():
            options.setdefault(field_name, _option(field_name, field, name))
    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    command.__signature__ = inspect.Signature([context, *options.values(), *extra])  # type: ignore[attr-defined]
    return command


def make_app() -> typer.Typer:
    """The command line as a typer application."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.callback(invoke_without_command=True)(_command())
    for command in (grid, report, redteam):
        app.command()(command)
    return app


def main() -> None:
    """Entry point of ``python run_sim.py`` and of the ``byzflower`` command."""
    for variable in (
        "RAY_USAGE_STATS_ENABLED",
        "FLWR_TELEMETRY_ENABLED",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO",  # silences a warning about GPUs that nobody asked for
    ):
        os.environ.setdefault(variable, "0")
    logging.getLogger("flwr").setLevel(logging.ERROR)
    # `python run_sim.py` puts the repository's folders (datasets, server, ...) on the import path, and
    # Ray passes it on to its workers, where they would shadow other packages of those names.
    here = str(Path(__file__).resolve().parents[1])
    sys.path[:] = [entry for entry in sys.path if entry not in ("", here)]
    make_app()()
