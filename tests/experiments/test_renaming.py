"""Runs that an earlier version named are found, checked, and renamed without loss; nothing is overwritten."""

import hashlib
import json
import os
import shutil

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from byzflower.cli.main import make_app
from byzflower.experiments import renaming
from byzflower.experiments.renaming import move, old_runs
from byzflower.server.checkpoints import CHECKPOINT, give_checkpoint, read_checkpoint
from byzflower.server.config.tasks import make_config
from byzflower.server.engines.simulation import simulate
from byzflower.server.files import RunFolderError
from byzflower.server.recorder import Recorder
from byzflower.server.results import give_result, result_of

SMALL = {
    **{
        "engine": "inline",
        "nodes": 1,
        "clients": 5,
        "byzantine": 1,
        "rounds": 2,
        "batches": 1,
        "model": "mlp",
    },
    **{"strategy": "median", "local_momentum": 0.5},
}
OLD = "0123456789"


def invoke(*arguments):
    result = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"}).invoke(
        make_app(), ["runs", *map(str, arguments)]
    )
    return result.exit_code, result.output


def grow_old(folder):
    """Make a run one of the old naming; returns its folder."""
    old = folder.with_name(f"{OLD}-{folder.name.partition('-')[2]}")
    give_result(folder, OLD)
    give_checkpoint(folder / CHECKPOINT, old.name)
    return folder.rename(old)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A folder with a finished run in a grid's folder, and one that was stopped after its first round."""
    root = tmp_path_factory.mktemp("original")
    finished = make_config({**SMALL, "out": str(root), "name": "grid/full"})
    simulate(finished)
    stopped = make_config({**SMALL, "out": str(root), "name": "stopped", "seed": 2})

    class Enough(Exception):
        """Ends a run."""

    def stop(record):
        if record["round"] == 2:
            raise Enough

    with pytest.raises(Enough):
        simulate(stopped, stop)
    assert (stopped.folder() / CHECKPOINT).is_file()
    return root, finished, stopped


@pytest.fixture
def runs(original, tmp_path):
    """The same, grown old: root and configurations there."""
    _, finished, stopped = original
    root = tmp_path / "runs"
    shutil.copytree(original[0], root)
    configs = [config.model_copy(update={"out": str(root)}) for config in (finished, stopped)]
    return root, configs, [grow_old(config.folder()) for config in configs]


def test_old_runs_are_found_and_left_alone_unless_they_are_to_be_moved(runs):
    root, configs, olds = runs
    before = [content(old) for old in olds]
    assert [run.folder for run in old_runs(root)] == olds
    code, said = invoke(root)
    assert code == 0, said
    for config, old in zip(configs, olds, strict=True):
        assert f"{old} -> {config.folder().name}" in said
    assert "2 runs have names of an earlier version (--move renames them), 0 cannot be" in said
    assert [content(old) for old in olds] == before


def test_what_was_moved_is_what_was_there_and_goes_on(original, runs):
    root, (finished, stopped), olds = runs
    whole = simulate(stopped.model_copy(update={"out": str(root.parent / "whole")})).result
    code, said = invoke(root, "--move")
    assert code == 0, said
    assert "2 runs have been renamed" in said
    assert not any(old.exists() for old in olds)
    now = content(finished.folder())
    assert now == content(original[1].folder())
    for line in now["SHA256SUMS"].decode().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256(now[name]).hexdigest() == digest
    assert result_of(finished)["config"] == finished.config_hash()
    assert read_checkpoint(stopped.folder() / CHECKPOINT)[0].round == 1
    rounds = []
    assert simulate(stopped, lambda record: rounds.append(record["round"])).result == whole
    assert "0 runs have been renamed" in invoke(root, "--move")[1]


def test_nothing_is_overwritten(runs):
    root, (finished, _), (old, other) = runs
    finished.folder().mkdir()
    before = content(old)
    code, said = invoke(root, "--move")
    assert code == 1
    assert f"error: {old} stays: {finished.folder()} is there already" in said
    assert content(old) == before
    assert not other.exists()


def test_a_run_that_somebody_works_on_stays(runs):
    root, _, (old, other) = runs
    with FileLock(old / ".lock"):
        code, said = invoke(root, "--move")
    assert code == 1
    assert f"error: another process is working on {old}" in said
    assert old.exists()
    assert not other.exists()


DAMAGE = {
    "no toml": (lambda old: (old / "config.toml").write_text("=="), "config.toml cannot be used"),
    "unknown option": (
        lambda old: (old / "config.toml").write_text("novelty = 1"),
        "unknown option 'novelty'",
    ),
    "another seed": (
        lambda old: (old / "config.toml").write_text(
            (old / "config.toml").read_text().replace("seed = 1", "seed = 9")
        ),
        "its config.toml is another run's",
    ),
    "another result": (lambda old: give_result(old, "f" * 10), "its result is another run's"),
    "damaged result": (lambda old: (old / "result.json").write_text("{}"), "its digest is not in SHA256SUMS"),
    "another checkpoint": (
        lambda old: give_checkpoint(old / CHECKPOINT, "f" * 10),
        "its checkpoint.pt is another run's",
    ),
    "damaged checkpoint": (lambda old: (old / CHECKPOINT).write_bytes(b"byz"), "checkpoint.pt is damaged"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_what_is_damaged_is_named_and_stays(case, runs):
    root, _, (old, other) = runs
    damage, text = DAMAGE[case]
    damage(old)
    before = content(old)
    code, said = invoke(root, "--move")
    assert code == 1
    assert "Traceback" not in said
    assert text in said
    assert str(old) in said
    assert content(old) == before
    assert not other.exists()


@pytest.mark.parametrize("step", range(1, 12))
def test_a_move_that_was_interrupted_can_be_made_again(step, original, runs, monkeypatch):
    """The power fails before a step: each time a file, or the folder, is about to be replaced."""
    root, (finished, _), (old, _) = runs
    steps = iter(range(step - 1, -1, -1))

    def failing(name):
        real = getattr(os, name)

        def change(*arguments, **options):
            if next(steps, None) == 0:
                raise KeyboardInterrupt
            return real(*arguments, **options)

        return change

    (run,) = (run for run in old_runs(root) if run.folder == old)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing("replace"))
        patch.setattr(os, "rename", failing("rename"))
        try:
            move(run)
            assert step > 5
        except KeyboardInterrupt:
            assert not finished.folder().exists()
    for again in old_runs(root):
        assert not isinstance(again, RunFolderError), again
        move(again)
    assert json.loads((finished.folder() / "result.json").read_text()) == json.loads(
        (original[1].folder() / "result.json").read_text()
    )
    assert content(finished.folder()) == content(original[1].folder())


def test_folders_that_are_no_runs_are_not_looked_at(tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "config.toml").write_text("==")
    assert list(old_runs(tmp_path)) == []
    assert invoke(tmp_path / "nowhere")[0] == 2
    assert renaming.__doc__
    assert Recorder(make_config({**SMALL, "out": str(tmp_path)})).folder.exists()
    assert list(old_runs(tmp_path)) == []
