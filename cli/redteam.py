"""The command ``redteam``: every attack on somebody's own strategy."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from byzflower.attacks import ATTACKS
from byzflower.cli.console import complain, console, names_of_mistakes, say
from byzflower.cli.options import Imports
from byzflower.flower.text import plain
from byzflower.server.config.classification import RunConfig

if TYPE_CHECKING:
    from byzflower.experiments.redteam import Verdict


def redteam(
    strategy: Annotated[str, typer.Argument(help="module:name of a strategy, a class, or a function")],
    clients: Annotated[int, typer.Option(help="clients")] = 20,
    byzantine: Annotated[int, typer.Option(help="how many of them are Byzantine")] = 4,
    rounds: Annotated[int, typer.Option(help="rounds per attack")] = 15,
    dataset: Annotated[str, typer.Option(help="data set")] = "digits",
    data: Annotated[str, typer.Option(help="folder with its raw files")] = "",
    model: Annotated[str, typer.Option(help="model")] = "cnn",
    tolerance: Annotated[float, typer.Option(help="accuracy an attack may cost")] = 0.1,
    imports: Imports = None,
) -> None:
    """Run the catalogue of attacks on your own Flower strategy and say which ones break it."""
    options = {"clients": clients, "byzantine": byzantine, "rounds": rounds, "dataset": dataset}
    options |= {"strategy": "fedavg", "partition": "dirichlet", "min_size": 5, "clip_norm": 10.0}
    with names_of_mistakes():
        config = RunConfig.make({**options, "data": data, "model": model, "imports": imports or ()})
        # Late: it needs torch and Flower, which --help and a wrong option do not.
        from byzflower.experiments.redteam import attack_all, find_strategy

        make = find_strategy(strategy)
        for fault in ATTACKS.faults().values():
            complain(fault)
        table = Table(title=f"{plain(strategy)}: {clients} clients, {byzantine} Byzantine, {rounds} rounds")
        for column in ("attack", "accuracy", "verdict"):
            table.add_column(column)

        def show(verdict: "Verdict") -> None:
            accuracy = "-" if verdict.accuracy is None else f"{verdict.accuracy:.3f}"
            table.add_row(verdict.attack, accuracy, _verdict_text(verdict))

        with Live(table, console=console):
            verdicts = attack_all(make, config, tolerance, show)
    broken = [verdict.attack for verdict in verdicts if verdict.broken]
    say(f"broken by: {', '.join(broken) or 'none of them'}")
    if broken or verdicts[0].error:
        raise typer.Exit(1)


def _verdict_text(verdict: "Verdict") -> Text:
    if verdict.error:
        return Text(plain(f"ended: {verdict.error}"), "red")
    if verdict.attack == "none":
        return Text("the clean run")
    return Text("breaks it", "red") if verdict.broken else Text("withstood")
