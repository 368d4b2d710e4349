"""Run configurations one after the other, and show how they compare."""

from collections.abc import Callable, Sequence
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from byzflower.cli.console import complain, console, say
from byzflower.clients.data import training_data
from byzflower.clients.recommender.moments import divided_feedback
from byzflower.server.config.checks import ConfigError
from byzflower.server.config.recommendation import RecommendationConfig
from byzflower.server.config.tasks import Config
from byzflower.server.engines.simulation import simulate
from byzflower.server.recorder import Recorder, summarise
from byzflower.server.results import Record
from byzflower.strategies import TooManySkippedRounds


def compare(configs: Sequence[Config], fresh: bool) -> list[Record] | None:
    """Run each configuration, unless it is finished, and print a table of the results.

    Args:
        configs: what to run: the same but for the strategy.
        fresh: run again what is finished already.

    Returns:
        The results; None if the user stopped it. Those of runs that gave up have no ``model``.

    Raises:
        ConfigError: the data cannot be divided, or a run cannot be started.
    """
    _check_data(configs[0])
    results = _run_all(configs, fresh)
    if results is not None:
        _report(configs, results)
    return results


def _check_data(config: Config) -> None:
    """Load (and, the first time, prepare) the data before any engine starts."""
    if isinstance(config, RecommendationConfig):
        return
    try:
        (divided_feedback if config.recommends else training_data)(config.client_settings())
    except ValueError as error:
        raise ConfigError(f"clients/partition: {error}") from None


def _run_all(configs: Sequence[Config], fresh: bool) -> list[Record] | None:
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


def _report(configs: Sequence[Config], results: Sequence[Record]) -> None:
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
    from byzflower.cli.pictures import draw  # late: matplotlib is not needed before

    draw(configs, results, title)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
