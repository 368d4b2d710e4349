"""Nothing is imported before it is needed: which modules are there, not how long they took."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from byzflower.datasets import load_dataset

pytestmark = pytest.mark.compat

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "flwr", "sklearn", "scipy", "matplotlib", "torchvision", "ray"}
# What prints last prints the names of all modules that are there.
REPORT = "import sys; print(sorted({name.partition('.')[0] for name in sys.modules}))"


def modules_of(code, cwd):
    """Names of the packages that are there after some code ran in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{REPORT}"],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stderr
    return set(ast.literal_eval(done.stdout.splitlines()[-1])), done.stdout


def command(*arguments, code=0):
    """Code that runs a command line and goes on when it has ended."""
    return (
        "import sys\n"
        "from byzflower.cli.main import main\n"
        f"sys.argv = ['run_sim.py', *{list(arguments)!r}]\n"
        "try:\n    main()\n"
        f"except SystemExit as end:\n    assert (end.code or 0) == {code}, end.code\n"
    )


def test_a_package_of_rules_costs_nothing_before_a_rule_is_asked_for(tmp_path):
    assert (
        not HEAVY
        & modules_of("import byzflower.strategies, byzflower.attacks, byzflower.server", tmp_path)[0]
    )


def test_a_rule_costs_torch_and_flower_alone(tmp_path):
    found, _ = modules_of("from byzflower.strategies import MultiKrum; MultiKrum(3)", tmp_path)
    # Flower brings typer and rich; pydantic is the configuration's.
    assert HEAVY & found == {"torch", "flwr"}
    assert "pydantic" not in found - modules_of("import torch, flwr.serverapp", tmp_path)[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("grid", "--help"),
        ("report", "--help"),
        ("redteam", "--help"),
        ("runs", "--help"),
        ("--list",),
    ],
    ids=" ".join,
)
def test_help_and_names_need_neither_torch_nor_flower(arguments, tmp_path):
    found, said = modules_of(command(*arguments), tmp_path)
    assert not HEAVY & found
    assert len(said.splitlines()) > 5


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--atack", "alie"), ""),  # typer's own words, on the error output
        (("--attack", "alei"), "did you mean 'alie'"),
        (("--dataset", "minst"), "did you mean 'mnist'"),
        (("--pre", "nmm", "--lr", "-1"), "did you mean 'nnm'"),
        (("--task", "recommendation", "--strategy", "medain"), "did you mean 'median'"),
        (("--import", "no_such_module_anywhere"), "no module no_such_module_anywhere"),
        (("grid", "no-such-recipe.toml"), "no recipe at no-such-recipe.toml"),
        (("redteam", "mine:strategy", "--dataset", "minst"), "did you mean 'mnist'"),
        (("report", "no-such-folder"), "no runs in no-such-folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_typo_is_told_without_torch_or_flower(arguments, text, tmp_path):
    found, said = modules_of(command(*arguments, code=2), tmp_path)
    assert not HEAVY & found
    assert text in said


def test_an_inline_run_needs_no_more_than_torch_and_flower_until_the_pictures(tmp_path):
    load_dataset("digits")  # scikit-learn, which they come with, is needed once
    run = [
        "from byzflower.cli import comparison",
        "from byzflower.server.config.tasks import make_config",
        "def look(record):",
        "    if record['round'] == 1: "
        + REPORT.replace("import sys; ", "import sys, os; ")
        + "; os._exit(0)",
        "options = dict(engine='inline', rounds=2, clients=6, byzantine=1, batches=1, out='runs')",
        "comparison.simulate(make_config(options), look)",
    ]
    done = subprocess.run(
        [sys.executable, "-u", "-c", "\n".join(run)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert HEAVY & set(ast.literal_eval(done.stdout.splitlines()[-1])) == {"torch", "flwr"}
