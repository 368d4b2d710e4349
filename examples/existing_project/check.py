"""Attack and defend this project by one line each, with what is installed, and say how it fared.

    pip install byzflower flwr-datasets
    python examples/existing_project/check.py

The project is copied aside and run on Flower's simulation engine: as it is, attacked, and attacked and
defended, once on each of Flower's two APIs. The exit status is 1 if one line did not do what it should.
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
_NODES, _TIMEOUT = 10, 500
_RUN = """
from digitsapp.{client} import app as client_app
from digitsapp.{server} import app as server_app
from flwr.simulation import run_simulation

resources = {{"client_resources": {{"num_cpus": 1, "num_gpus": 0.0}}}}
run_simulation(server_app, client_app, num_supernodes={nodes}, backend_config=resources)
"""
_GOOD, _BAD = 0.8, 0.5


class Api(NamedTuple):
    """The lines of a server that change, and what they become.

    Attributes:
        server: file with the server.
        components: modules with the ServerApp and the ClientApp.
        strategy: the line that makes the strategy.
        defended: what it becomes.
        attacked: a line to put after it.
    """

    server: str
    components: tuple[str, str]
    strategy: str
    defended: str
    attacked: str


APIS = {
    "Message API": Api(
        "server_app.py",
        ("server_app", "client_app"),
        "strategy = FedAvg(min_available_nodes=10)",
        "strategy = byzflower.strategies.MultiKrum(num_byzantine=3, min_available_nodes=10)",
        "strategy = byzflower.server.Adversary(strategy, byzflower.attacks.IPM(eps=10.0), num_byzantine=3)",
    ),
    "NumPyClient": Api(
        "legacy_server_app.py",
        ("legacy_server_app", "legacy_client_app"),
        "strategy = FedAvg(**options)",
        "strategy = byzflower.strategies.LegacyStrategy("
        "byzflower.strategies.MultiKrum(num_byzantine=3), **options)",
        "strategy = byzflower.server.LegacyAdversary("
        "strategy, byzflower.attacks.IPM(eps=10.0), num_byzantine=3)",
    ),
}


def accuracy(api: Api, *, defended: bool, attacked: bool) -> float:
    """Run a copy of the project with its lines changed; returns the last accuracy."""
    with tempfile.TemporaryDirectory(prefix="project-") as folder:
        app = Path(folder) / "digitsapp"
        shutil.copytree(HERE, app, ignore=shutil.ignore_patterns("__pycache__", "check.py"))
        server = app / "digitsapp" / api.server
        server.write_text(_changed(server.read_text(), api, defended=defended, attacked=attacked))
        server_app, client_app = api.components
        run = _RUN.format(server=server_app, client=client_app, nodes=_NODES)
        environment = {**os.environ, "PYTHONPATH": str(app)}
        output = _output([sys.executable, "-W", "ignore", "-c", run], app, environment)
        said = [line for line in output.splitlines() if line.startswith("accuracy: ")]
        if not said:
            raise SystemExit(f"the project did not run:\n{output[-6000:]}")
        return float(said[-1].removeprefix("accuracy: "))


def _output(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    """What a command says; if it takes too long, it is ended, and whatever it started."""
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            return process.communicate(timeout=_TIMEOUT)[0]
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _changed(text: str, api: Api, *, defended: bool, attacked: bool) -> str:
    (line,) = (line for line in text.splitlines() if line.strip() == api.strategy)
    lines = [api.defended if defended else api.strategy] + ([api.attacked] if attacked else [])
    indent = line[: len(line) - len(line.lstrip())]
    imports = "import byzflower.attacks\nimport byzflower.server\nimport byzflower.strategies\n"
    changed = text.replace(line, "\n".join(indent + own for own in lines))
    return changed.replace("from flwr.", f"{imports}from flwr.", 1)


def check_nothing_is_shadowed() -> None:
    """`datasets` is Hugging Face's, which flwr-datasets needs, and none of our folders is at top level."""
    import flwr_datasets

    import byzflower.datasets
    import datasets

    site = Path(flwr_datasets.__file__).parents[1]
    assert Path(datasets.__file__).parent == site / "datasets"
    assert hasattr(datasets, "Dataset")
    assert Path(byzflower.datasets.__file__).parents[2] == site, "byzflower is not installed from a wheel"
    for name in ("server", "clients", "strategies", "uploads", "attacks", "models", "tests", "recipes"):
        assert not (site / name).exists(), f"{name} is at top level"


def main() -> None:
    """Print one table."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    check_nothing_is_shadowed()
    print("| API | as it is | attacked | attacked and defended |\n|---|---|---|---|", flush=True)
    worked = True
    for name, api in APIS.items():
        plain = accuracy(api, defended=False, attacked=False)
        attacked = accuracy(api, defended=False, attacked=True)
        both = accuracy(api, defended=True, attacked=True)
        worked &= plain > _GOOD and attacked < _BAD and both > _GOOD
        print(f"| {name} | {plain:.3f} | {attacked:.3f} | {both:.3f} |", flush=True)
    raise SystemExit(0 if worked else 1)


if __name__ == "__main__":
    main()
