"""Grids run, resume, fail one by one, and are reported."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from byzflower.cli import main as cli
from byzflower.experiments.recipe import load_plan, select
from byzflower.experiments.report.results import load_report
from byzflower.experiments.runner import State, run_cells
from byzflower.server.recorder import Recorder

ROOT = Path(__file__).parents[2]
RECIPE = """
title = "Two attacks <b> & two rules"
reproduces = "Some paper, table 1"
[base]
model = "mlp"
clients = 9
byzantine = 2
rounds = {rounds}
batches = 1
[cross]
attack = ["labelflip", {{label = "ipm | strong", attack = "ipm", attack-options = "eps=10"}}]
strategy = ["fedavg", "median"]
seed = [1, 2]
[[paper]]
attack = "labelflip"
strategy = "median"
accuracy = 0.5
"""


def write(tmp_path, rounds=3):
    path = tmp_path / "small.toml"
    path.write_text(RECIPE.format(rounds=rounds))
    return path


def invoke(*arguments):
    result = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"}).invoke(cli.make_app(), list(arguments))
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A grid that ran to its end: the recipe, and the folder of the runs."""
    folder = tmp_path_factory.mktemp("grid")
    recipe = write(folder)
    code, output = invoke("grid", str(recipe), "--out", str(folder / "runs"), "--jobs", "2")
    assert code == 0, output
    return recipe, folder / "runs"


def results(out):
    return {p.relative_to(out): p.read_bytes() for p in Path(out).rglob("result.json")}


def test_a_grid_runs_once(finished):
    recipe, out = finished
    assert len(results(out)) == 8
    before = {p: p.stat().st_mtime_ns for p in out.rglob("result.json")}
    code, output = invoke("grid", str(recipe), "--out", str(out))
    assert code == 0
    assert "8 runs, 8 done" in output
    assert {p: p.stat().st_mtime_ns for p in out.rglob("result.json")} == before


def test_a_dry_run_runs_nothing(tmp_path):
    code, output = invoke("grid", str(write(tmp_path)), "--out", str(tmp_path / "runs"), "--dry-run")
    assert code == 0
    assert "2 attack x 2 strategy x 2 seed: 8 runs, 0 done" in output
    assert not (tmp_path / "runs").exists()


def test_only_a_part(finished, tmp_path):
    recipe, _ = finished
    code, _ = invoke(
        "grid", str(recipe), "--out", str(tmp_path), "--only", "seed=1", "--only", "strategy=median"
    )
    assert code == 0
    assert len(results(tmp_path)) == 2


def test_an_interrupted_grid_goes_on_to_the_same_bytes(tmp_path):
    recipe = write(tmp_path, rounds=60)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert invoke("grid", str(recipe), "--out", str(whole), "--only", "attack=labelflip")[0] == 0
    command = [sys.executable, str(ROOT / "run_sim.py"), "grid", str(recipe), "--out", str(parts)]
    command += ["--only", "attack=labelflip", "--jobs", "2"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        start_new_session=True,
    )
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        lengths = [len(p.read_text().splitlines()) for p in parts.rglob("rounds.jsonl")]
        if lengths and max(lengths) > 5:
            break
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the command and its workers
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert len(results(parts)) < 4
    assert invoke("grid", str(recipe), "--out", str(parts), "--only", "attack=labelflip")[0] == 0
    assert results(parts) == results(whole)


def test_a_failed_cell_is_marked_and_the_rest_goes_on(tmp_path):
    text = RECIPE.format(rounds=4).replace('"median"]', '"krum"]').replace('"median"', '"krum"')
    path = tmp_path / "failing.toml"
    path.write_text(text.replace("seed = [1, 2]", "lr = [0.1, 1e30]\nseed = [1]"))
    code, output = invoke("grid", str(path), "--out", str(tmp_path / "runs"))
    assert code == 1
    assert output.count("TooManySkippedRounds") >= 2
    assert "Traceback" not in output
    report = load_report(tmp_path / "runs" / "failing" / "full")
    assert report.failures
    assert all(run.labels["lr"] == "1e+30" for run in report.failures)
    assert sum(run.result is not None for run in report.runs) >= 4
    assert "failed" in invoke("report", str(tmp_path / "runs" / "failing" / "full"))[1]


def test_processes_report_their_progress(tmp_path):
    plan = load_plan(write(tmp_path), out=str(tmp_path / "runs"))
    seen = []

    class Watcher:
        def update(self, cells, progress):
            seen.extend(own.round for own in progress)

    progress = run_cells(plan.cells[:2], 1, Watcher())
    assert [own.state for own in progress] == [State.DONE, State.DONE]
    assert max(seen) == 3
    assert all(0 <= own.score <= 1 for own in progress)


def test_a_cell_that_another_process_works_on_is_left_to_it(tmp_path):
    recipe, out = write(tmp_path, rounds=1), tmp_path / "runs"
    two = ["attack=labelflip", "strategy=fedavg"]
    plan = load_plan(recipe, "full", str(out))
    first, _ = select(plan.cells, plan.axes, two)
    arguments = ["--only", two[0], "--only", two[1], "--jobs", "1", "--out", str(out)]
    with Recorder(first.config).alone():
        code, output = invoke("grid", str(recipe), *arguments)
        assert code == 0, output
        assert "1 runs are left to the process that is working on them" in output
        assert len(results(out)) == 1
    code, output = invoke("grid", str(recipe), *arguments)
    assert code == 0, output
    assert len(results(out)) == 2


def test_the_report_has_means_best_values_and_the_papers(finished):
    _, out = finished
    folder = out / "small" / "full"
    code, output = invoke("report", str(folder), "--html", str(out / "page.html"))
    assert code == 0, output
    report = load_report(folder)
    table = report.table("accuracy", {})
    entry = table.entries["labelflip", "median"]
    values = [
        run.result["accuracy"] for run in report.matching({"attack": "labelflip", "strategy": "median"})
    ]
    assert entry.value.mean == pytest.approx(sum(values) / 2)
    assert entry.value.std == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert entry.difference == pytest.approx(entry.value.mean - 0.5)
    assert all(any(table.entries[row, column].best for column in table.columns) for row in table.rows)
    assert "(paper 0.500, " in output
    assert "**" in output
    assert r"ipm \| strong" in output


def test_the_reports_files(finished):
    _, out = finished
    folder = out / "small" / "full"
    invoke("report", str(folder), "--html", str(out / "page.html"))
    with open(folder / "report" / "accuracy-0.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert {row["seeds"] for row in rows} == {"2"}
    tex = (folder / "report" / "accuracy-0.tex").read_text()
    assert tex.count(r"\\") == 3
    assert r"\textbf" in tex
    for name in ("curves-0", "heat-map-0"):
        assert (folder / "report" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        svg = (folder / "report" / f"{name}.svg").read_text()
        ElementTree.fromstring(svg)
        assert "currentColor" in svg


def test_the_report_of_a_part_names_no_picture_that_is_not_there(tmp_path):
    recipe = tmp_path / "parts.toml"
    text = RECIPE.format(rounds=1).replace("seed = [1, 2]", 'seed = [1]\npartition = ["iid", "dirichlet"]')
    recipe.write_text(text)
    folder = tmp_path / "runs" / "parts" / "full"
    first = ["--only", "partition=dirichlet", "--only", "attack=labelflip", "--only", "strategy=fedavg"]
    code, output = invoke("grid", str(recipe), "--out", str(tmp_path / "runs"), "--jobs", "1", *first)
    assert code == 0, output
    code, output = invoke("report", str(folder))
    assert code == 0, output
    text = (folder / "report" / "report.md").read_text()
    pictures = re.findall(r"]\((.*?)\)", text)
    assert pictures
    assert all((folder / "report" / name).is_file() for name in pictures)


def test_the_page_needs_no_network_and_escapes_what_it_shows(finished):
    _, out = finished
    invoke("report", str(out / "small" / "full"), "--html", str(out / "page.html"))
    page = (out / "page.html").read_text()
    assert "Two attacks &lt;b&gt; &amp; two rules" in page
    assert not re.search(r"(src|href)=['\"](?!#|data:)", page.replace("xlink:", ""))
    assert "prefers-color-scheme: dark" in page
    assert "width=device-width" in page
    assert page.count("<svg") == 2


OBSERVED = """
title = "Observed"
metric = "best_accuracy"
also = ["train-loss", "skew"]
best = "lowest"
[base]
model = "mlp"
clients = 9
byzantine = 2
rounds = 3
batches = 1
strategy = "fedavg"
diagnostics = true
embed-rounds = "2"
[cross]
strategy = ["fedavg"]
attack = ["none", {label = "ipm", attack = "ipm", tries = {attack-options = ["eps=0.1", "eps=20"]}}]
[[claim]]
text = "IPM <hurts>."
lower = {attack = "ipm"}
[[claim]]
text = "Nothing hurts more."
lower = {attack = "none"}
"""


def test_the_report_shows_claims_tries_diagnostics_and_pictures(tmp_path):
    recipe = tmp_path / "observed.toml"
    recipe.write_text(OBSERVED)
    assert invoke("grid", str(recipe), "--out", str(tmp_path / "runs"), "--jobs", "1")[0] == 0
    folder = tmp_path / "runs" / "observed" / "full"
    code, text = invoke("report", str(folder), "--html", str(tmp_path / "page.html"))
    assert code == 0, text
    values = {}
    for run in load_report(folder).runs:
        history = run.result["history"]
        assert run.value("best_accuracy") == max(record["accuracy"] for record in history)
        assert run.value("train-loss") == history[-1]["train"]["train-loss"]
        skews = [record["diagnostics"]["skew"] for record in history if "diagnostics" in record]
        assert run.value("skew") == pytest.approx(sum(skews) / 3)
        values[run.tried] = run.value("best_accuracy")
    worst = min(("eps=0.1", "eps=20"), key=values.get)
    assert f"{values[worst]:.3f} [{worst}]" in text.replace("**", "")
    verdict = "holds" if values[worst] < values[""] else "does not hold"
    assert (
        f"IPM &lt;hurts>.\n\n* fedavg: {verdict}: {values[worst]:.3f} against {values['']:.3f} (none)" in text
    )
    for heading in ("## train-loss", "## skew", "## perturbation", "## error", "## cos-attack-mean"):
        assert heading in text
    written = {path.name for path in (folder / "report").iterdir()}
    pictures = {
        "curves-0",
        "curves-train-loss-0",
        "curves-skew-0",
        "heat-map-0",
        "skew-0",
        "skew-1",
        "skew-2",
    }
    assert {f"{name}.{kind}" for name in pictures for kind in ("png", "svg")} <= written
    assert set(re.findall(r"\]\((\S+?)\)", text)) <= written
    page = (tmp_path / "page.html").read_text()
    assert "IPM &lt;hurts&gt;." in page
    assert "How the attack lies among the benign updates" in page
    # accuracy, train-loss, skew, the map, a picture per run, and a curve of each further diagnostic
    assert page.count("<svg") == 7 + len(load_report(folder).diagnostics) - 1


def test_loose_runs_are_laid_out_by_what_differs(tmp_path):
    size = ["--engine", "inline", "--rounds", "1", "--clients", "6", "--byzantine", "1", "--batches", "1"]
    for lr in ("0.1", "0.2"):
        invoke(
            *size,
            "--model",
            "mlp",
            "--strategy",
            "fedavg,median",
            "--lr",
            lr,
            "--out",
            str(tmp_path / "runs"),
        )
    code, output = invoke("report", str(tmp_path / "runs"))
    assert code == 0, output
    assert "accuracy (lr 0.1)" in output
    assert "accuracy (lr 0.2)" in output
    assert invoke("report", str(tmp_path / "nothing"))[0] == 2


def test_redteam_says_what_breaks_a_strategy(tmp_path, monkeypatch):
    (tmp_path / "their_strategy.py").write_text(
        "from flwr.serverapp.strategy import FedAvg\n"
        "from byzflower.strategies import Median\n"
        "everyone = dict(fraction_evaluate=0.0, min_available_nodes=8, min_train_nodes=8)\n"
        "plain = FedAvg(**everyone)\n"
        "def robust(): return Median(**everyone)\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    size = ["--clients", "8", "--byzantine", "2", "--rounds", "4", "--model", "mlp"]
    code, output = invoke("redteam", "their_strategy:plain", *size)
    assert code == 1
    assert re.search(r"broken by: .*ipm eps=10", output)
    code, output = invoke("redteam", "their_strategy:robust", *size, "--tolerance", "0.9")
    assert code == 0, output
    assert "broken by: none" in output
    for wrong in ("their_strategy:number", "their_strategy:none", "no_such_module:x", "nothing"):
        code, output = invoke("redteam", wrong)
        assert code == 2
        assert "error: redteam:" in output
