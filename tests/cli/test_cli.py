"""The command line: what it prints, and that a user's mistake is one clear line."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from byzflower.attacks import ATTACKS
from byzflower.cli import main as cli
from byzflower.datasets import DATASETS
from byzflower.models import MODELS
from byzflower.server.config.classification import RunConfig
from byzflower.strategies import STRATEGIES

pytestmark = pytest.mark.compat

ROOT = Path(__file__).parents[2]
QUICK = ["--engine", "inline", "--rounds", "2", "--batches", "1", "--clients", "8", "--byzantine", "2"]


def invoke(*arguments):
    result = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"}).invoke(cli.make_app(), list(arguments))
    return result.exit_code, result.output


def test_the_default_job_compares_a_mean_with_a_defence(tmp_path):
    code, output = invoke("--out", str(tmp_path), "--engine", "inline", "--rounds", "3")
    assert code == 0, output
    assert re.search(r"fedavg .* all ", output)
    assert re.search(r"multikrum .*12\.0 of 20 .*1\.000 .*1\.000", output)
    pictures = re.findall(r"(?:plot|partition): (\S+)", output)
    assert len(pictures) == 3
    table = Path(pictures.pop()).read_text().splitlines()
    assert table[0].startswith("client,byzantine,samples,class 0")
    assert sum(int(line.split(",")[2]) for line in table[1:]) == 1438
    assert all(Path(p).read_bytes().startswith(b"\x89PNG") for p in pictures)
    for folder in re.findall(r"results: (\S+)", output):
        names = {p.name for p in Path(folder).iterdir()}
        assert {"config.toml", "rounds.jsonl", "result.json", "model.pt"} <= names


def test_every_option_of_a_run_is_a_command_line_option():
    _, output = invoke("--help")
    for name in RunConfig.model_fields:
        assert f"--{name.replace('_', '-')}" in output


def test_list_shows_everything_with_a_line_about_it():
    code, output = invoke("--list")
    assert code == 0
    for name in [*STRATEGIES, *ATTACKS, *DATASETS, *MODELS]:
        assert re.search(rf"\b{name}\b +\S+ \S+", output), name


MISTAKES = {
    "strategy": (["--strategy", "multikrm"], "unknown strategy 'multikrm'; did you mean 'multikrum'?"),
    "attack": (["--attack", "alei"], "unknown attack 'alei'; did you mean 'alie'?"),
    "dataset": (["--dataset", "minst"], "unknown dataset 'minst'; did you mean 'mnist'?"),
    "model": (["--model", "cmn"], "unknown model 'cmn'; did you mean 'cnn'?"),
    "too many attackers": (["--byzantine", "9"], "MultiKrum needs n > 2f + 2, got n=20, f=9"),
    "attack option": (
        ["--attack", "ipm", "--attack-options", "ebs=1"],
        "parameter 'ebs'; did you mean 'eps'",
    ),
    "strategy option": (
        ["--strategy", "krum", "--strategy-options", "num_byzantin=1"],
        "did you mean 'num_byzantine'",
    ),
    "no strategy options": (
        ["--strategy", "median", "--strategy-options", "f=1"],
        "Median has no parameters, got f",
    ),
    "negative rate": (["--lr", "-1"], "lr: Input should be greater than 0"),
    "choice": (
        ["--partition", "dirichle"],
        "partition: Input should be 'iid', 'dirichlet', 'shards' or 'natural'",
    ),
    "more clients than samples": (["--clients", "2000", "--byzantine", "8"], "1438 samples cannot give 2000"),
    "both node options": (["--nodes", "2", "--clients-per-node", "2"], "either nodes or clients-per-node"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_named_and_never_a_traceback(case, tmp_path):
    arguments, text = MISTAKES[case]
    code, output = invoke("--out", str(tmp_path), *arguments)
    assert code == 2, output
    assert text in output
    assert "Traceback" not in output


def test_all_mistakes_are_said_at_once():
    _, output = invoke("--attack", "alei", "--dataset", "minst", "--byzantine", "30")
    assert output.count("error:") == 3


def test_missing_data_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("BYZFLOWER_CACHE", str(tmp_path / "cache"))
    code, output = invoke("--dataset", "mnist", "--data", str(tmp_path))
    assert code == 2
    assert "--data" in output
    assert str(tmp_path) in output


@pytest.mark.skipif(torch.cuda.is_available(), reason="there are GPUs here")
def test_gpus_that_are_not_there_are_one_line_not_a_hang(tmp_path):
    code, output = invoke("--num-gpus", "0.5", "--out", str(tmp_path))
    assert code == 2
    assert "num-gpus: 0.5 per node asked for, but there are 0 GPUs here" in output


def test_a_finished_comparison_is_shown_again_without_running(tmp_path):
    arguments = [*QUICK, "--out", str(tmp_path), "--strategy", "median,trimmedmean"]
    first = invoke(*arguments)[1]
    started = time.monotonic()
    second = invoke(*arguments)[1]
    assert time.monotonic() - started < 10
    assert [line for line in second.splitlines() if "│" in line] == [
        line for line in first.splitlines() if "│" in line
    ]


def test_a_run_can_be_repeated_from_its_config_file(tmp_path):
    arguments = [*QUICK, "--strategy", "median", "--attack", "alie", "--attack-options", "z=none"]
    code, output = invoke(*arguments, "--out", str(tmp_path / "a"))
    assert code == 0, output
    (first,) = (tmp_path / "a").rglob("result.json")
    code, output = invoke("--config", str(first.parent / "config.toml"), "--out", str(tmp_path / "b"))
    assert code == 0, output
    (second,) = (tmp_path / "b").rglob("result.json")
    assert first.read_bytes() == second.read_bytes()
    assert invoke("--config", str(tmp_path / "none.toml"))[0] == 2


def test_a_strategy_that_gives_up_does_not_end_the_comparison(tmp_path):
    """All honest clients diverge at this rate; nothing usable arrives."""
    options = [*QUICK, "--rounds", "5", "--lr", "1e30", "--strategy", "krum,trimmedmean"]
    code, output = invoke(*options, "--out", str(tmp_path))
    assert code == 1, output
    for name in ("krum", "trimmedmean"):
        assert f"error: {name}: 3 rounds in a row were skipped (max_skipped_rounds=3)" in output
        assert re.search(rf"│ {name} +│", output)


@pytest.mark.ray
def test_ctrl_c_leaves_a_folder_to_go_on_from(tmp_path):
    command = [sys.executable, str(ROOT / "run_sim.py"), "--out", str(tmp_path), "--strategy", "median"]
    command += [
        "--rounds",
        "400",
        "--clients",
        "8",
        "--byzantine",
        "2",
        "--batches",
        "1",
        "--engine",
        "inline",
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        records = list(tmp_path.rglob("rounds.jsonl"))
        if records and len(records[0].read_text().splitlines()) > 5:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert "goes on from the last finished round" in output
    folder = records[0].parent
    assert (folder / "checkpoint.pt").is_file()
    assert (folder / "config.toml").is_file()
    assert not (folder / "result.json").exists()


@pytest.mark.ray
def test_the_whole_command_on_ray(tmp_path):
    """As README says it, from another folder, with a source tree on the path that shadows nothing."""
    arguments = ["--out", str(tmp_path / "runs"), "--rounds", "2", "--strategy", "median"]
    environment = {**os.environ, "COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "run_sim.py"), *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(r"median +│ +0\.\d{3}", done.stdout)
