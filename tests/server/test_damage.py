"""Whatever happens to a run's files, the same command ends with the same result, or says what is wrong."""

import re
import shutil
import threading

import pytest
from apart import Apart
from typer.testing import CliRunner

from byzflower.cli.main import make_app
from byzflower.clients.app import app
from byzflower.experiments.report.results import load_report
from byzflower.experiments.runner import is_done
from byzflower.server.checkpoint_budget import CheckpointBudget
from byzflower.server.config.checks import ConfigError
from byzflower.server.config.tasks import make_config
from byzflower.server.engines.inline import InlineGrid
from byzflower.server.engines.simulation import simulate
from byzflower.server.federation import federation
from byzflower.server.recorder import Recorder

ROUNDS, STOP = 6, 4
OPTIONS = {
    **{"model": "mlp", "clients": 6, "byzantine": 1, "batches": 1, "attack": "mimic", "engine": "inline"},
    **{"strategy": "centeredclipping", "local_momentum": 0.9, "rounds": ROUNDS, "nodes": 2},
}


def stopped(config):
    """Run it until a round has ended."""
    stop, recorder, grid = threading.Event(), Recorder(config), InlineGrid(app, config.nodes)

    def on_round(record):
        if record["round"] == STOP:
            stop.set()

    with recorder.alone():
        outcome = federation(config, config.nodes, recorder).run(grid, on_round, stop)
    grid.close()
    assert outcome.interrupted


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of the same run, finished and stopped, and of another, finished; checkpoints of every round."""
    folder = tmp_path_factory.mktemp("runs")
    begun = make_config({**OPTIONS, "out": str(folder / "begun")})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointBudget, "allows", lambda self: True)
        finished, other = (
            simulate(make_config({**OPTIONS, **own, "out": str(folder / name)})).recorder.folder
            for name, own in (("finished", {}), ("other", {"seed": 2}))
        )
        stopped(begun)
    return {"finished": finished, "begun": begun.folder(), "other": other}


@pytest.fixture
def expected(runs):
    return (runs["finished"] / "result.json").read_bytes()


def copy_of(runs, what, tmp_path):
    config = make_config({**OPTIONS, "out": str(tmp_path / "out")})
    shutil.copytree(runs[what], config.folder())
    return config


def flip(share):
    def damage(path, other):
        content = bytearray(path.read_bytes())
        content[int(share * (len(content) - 1))] ^= 16
        path.write_bytes(content)

    return damage


def cut(share):
    return lambda path, other: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def rewrite(change):
    """Change the list of a file's lines."""

    def damage(path, other):
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(change(lines)))

    return damage


def edit(path, other):
    """Another score in the first record that has one."""
    text, changes = re.subn(rb'"accuracy": 0\.(\d)', rb'"accuracy": 0.9\1', path.read_bytes(), count=1)
    path.write_bytes(text if changes else path.read_bytes() + b" ")


def folder_in_its_place(path, other):
    path.unlink(missing_ok=True)
    path.mkdir()


def link_to_nowhere(path, other):
    path.unlink()
    path.symlink_to(path.parent / "nowhere" / "at-all")


DAMAGE = {
    "missing": lambda path, other: path.unlink(),
    "empty": lambda path, other: path.write_bytes(b""),
    "cut at a tenth": cut(0.1),
    "cut in the middle": cut(0.5),
    "cut at the end": lambda path, other: path.write_bytes(path.read_bytes()[:-1]),
    "a bit at the beginning": flip(0.0),
    "a bit at a third": flip(0.34),
    "a bit at two thirds": flip(0.67),
    "a bit at the end": flip(1.0),
    "doubled": lambda path, other: path.write_bytes(2 * path.read_bytes()),
    "first line doubled": rewrite(lambda lines: [lines[0], *lines]),
    "last line doubled": rewrite(lambda lines: [*lines, lines[-1]]),
    "second line missing": rewrite(lambda lines: lines[:1] + lines[2:]),
    "lines in another order": rewrite(lambda lines: [*lines[1:], lines[0]]),
    "more behind it": lambda path, other: path.write_bytes(path.read_bytes() + b'{"round": 3}\n'),
    "edited": edit,
    "other JSON": lambda path, other: path.write_bytes(b"[1]\n"),
    "zeros": lambda path, other: path.write_bytes(bytes(path.stat().st_size)),
    "another run's": shutil.copy,
    "a folder": folder_in_its_place,
    "a link to nowhere": link_to_nowhere,
}
FILES = [
    *[("begun", name) for name in ("checkpoint.pt", "rounds.jsonl")],
    ("finished", "result.json"),
    *[pytest.param("begun", name, marks=pytest.mark.slow) for name in ("checkpoint.older.pt", "config.toml")],
    *[
        pytest.param("finished", name, marks=pytest.mark.slow)
        for name in ("SHA256SUMS", "rounds.jsonl", "checkpoint.pt", "model.pt", "config.toml")
    ],
]


def ends_well(config, expected, name):
    """Run it; True if it ended with the result, False if it said what is wrong and what to do."""
    try:
        simulate(config)
    except ConfigError as error:
        said = str(error)
        assert str(config.folder() / name) in said, said
        assert "--fresh" in said or "Is a directory" in said, said
        return False
    assert (config.folder() / "result.json").read_bytes() == expected
    return True


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(("what", "name"), FILES)
def test_a_damaged_file_changes_no_result(what, name, damage, runs, expected, tmp_path):
    config = copy_of(runs, what, tmp_path)
    path = config.folder() / name
    if damage == "another run's":
        shutil.copy(runs["other"] / name.replace(".older", ""), path)
    else:
        DAMAGE[damage](path, None)
    if not ends_well(config, expected, name) and damage != "a folder":
        simulate(config, fresh=True)
        assert (config.folder() / "result.json").read_bytes() == expected


@pytest.mark.parametrize("damage", [name for name in DAMAGE if name not in ("missing", "a link to nowhere")])
def test_a_damaged_last_checkpoint_costs_its_rounds_only(damage, runs, expected, tmp_path, caplog):
    config = copy_of(runs, "begun", tmp_path)
    path = config.folder() / "checkpoint.pt"
    DAMAGE[damage](path, runs["other"] / "checkpoint.pt")
    if damage == "another run's":
        shutil.copy(runs["other"] / "checkpoint.pt", path)
    unchanged = path.is_file() and path.read_bytes() == (runs["begun"] / "checkpoint.pt").read_bytes()
    assert ends_well(config, expected, path.name) == (damage != "a folder")
    assert (f"going on from round {STOP - 1}" in caplog.text) != unchanged


def test_what_is_no_lock_is_named(runs, tmp_path):
    config = copy_of(runs, "begun", tmp_path)
    lock = config.folder() / ".lock"
    for damage in ("a folder", "a link to nowhere"):
        DAMAGE[damage](lock, None)
        with pytest.raises(ConfigError, match=f"{lock}: "):
            simulate(config)
        lock.rmdir() if lock.is_dir() else lock.unlink()
        lock.touch()


@pytest.mark.parametrize("damage", ["empty", "a bit at a third", "edited", "other JSON", "missing"])
def test_a_damaged_result_is_made_again(damage, runs, expected, tmp_path):
    config = copy_of(runs, "finished", tmp_path)
    DAMAGE[damage](config.folder() / "result.json", None)
    assert not is_done(config)
    assert ends_well(config, expected, "result.json")
    assert is_done(config)


def test_a_damaged_result_without_a_way_back_says_so(runs, tmp_path):
    config = copy_of(runs, "finished", tmp_path)
    for name in ("result.json", "checkpoint.pt", "checkpoint.older.pt"):
        DAMAGE["a bit at two thirds"](config.folder() / name, None)
    with pytest.raises(
        ConfigError, match=r"checkpoint\.pt is damaged; .*older\.pt is damaged: --fresh, or deleting"
    ):
        simulate(config)


@pytest.mark.parametrize("name", ["result.json", "rounds.jsonl", "config.toml"])
@pytest.mark.parametrize("damage", ["empty", "cut in the middle", "a bit at a third", "edited", "a folder"])
def test_reports_name_what_is_damaged(name, damage, runs, tmp_path):
    config = copy_of(runs, "finished", tmp_path)
    shutil.copytree(runs["other"], config.folder().with_name("other"))
    DAMAGE[damage](config.folder() / name, None)
    if name == "config.toml":
        done = CliRunner().invoke(make_app(), ["report", config.out])
        assert done.exit_code in (0, 2), done.output
        assert done.exit_code == 0 or str(config.folder() / name) in done.output.replace("\n", "")
        return
    (run,) = (run for run in load_report(tmp_path / "out").runs if run.error)
    assert run.result is None
    assert str(config.folder() / name) in run.error


def test_the_command_names_the_damage_and_the_way_out(runs, tmp_path):
    config = copy_of(runs, "begun", tmp_path)
    (config.folder() / "rounds.jsonl").unlink()
    arguments = ["--config", str(config.folder() / "config.toml"), "--out", config.out]
    done = CliRunner().invoke(make_app(), arguments)
    assert done.exit_code == 2, done.output
    said = done.output.replace("\n", " ")
    assert "rounds.jsonl is missing" in said
    assert "--fresh, or deleting the folder, starts the run anew" in said
    assert "Traceback" not in said
    assert CliRunner().invoke(make_app(), [*arguments, "--fresh"]).exit_code == 0


# -- the disk, and other processes -----------------------------------------------------------------------


@pytest.mark.parametrize("most_bytes", [0, 100, 800, 3000, 20_000, 40_000])
def test_a_full_disk_ends_nothing_silently(most_bytes, runs, expected, tmp_path):
    """No file may be longer."""
    config = make_config({**OPTIONS, "out": str(tmp_path)})
    said = Apart({**OPTIONS, "out": str(tmp_path)}, most_bytes=most_bytes).end()
    result = config.folder() / "result.json"
    if said:
        assert re.fullmatch(rf"{config.folder()}/[\w.]+: File too large", said), said
        assert not result.exists()
    else:
        assert result.read_bytes() == expected
    assert Apart({**OPTIONS, "out": str(tmp_path)}).end() == ""
    assert result.read_bytes() == expected


@pytest.mark.parametrize("what", ["begun", "nothing", "out"])
def test_a_folder_that_is_read_only_is_named(what, runs, expected, tmp_path):
    config = make_config({**OPTIONS, "out": str(tmp_path / "out")})
    if what == "begun":
        copy_of(runs, "begun", tmp_path)
    locked = config.folder() if what == "begun" else tmp_path / "out"
    locked.mkdir(exist_ok=True)
    mode = locked.stat().st_mode
    locked.chmod(0o500)
    said = Apart({**OPTIONS, "out": config.out}, powerless=True).end()
    locked.chmod(mode)
    assert re.fullmatch(rf"{locked}\S*: Permission denied", said), said
    assert ends_well(config, expected, "")


@pytest.mark.parametrize(
    "name", ["rounds.jsonl", "checkpoint.pt", "checkpoint.older.pt", "config.toml", ".lock"]
)
def test_files_that_are_read_only_or_not_readable(name, runs, expected, tmp_path):
    for mode in (0o400, 0o000):
        config = copy_of(runs, "begun", tmp_path / str(mode))
        (config.folder() / name).touch()
        (config.folder() / name).chmod(mode)
        said = Apart({**OPTIONS, "out": config.out}, powerless=True).end()
        if said:
            assert str(config.folder() / name) in said
            (config.folder() / name).chmod(0o600)
            simulate(config)
        assert (config.folder() / "result.json").read_bytes() == expected


@pytest.mark.parametrize("name", ["checkpoint.pt.new", "checkpoint.pt", "rounds.jsonl"])
def test_what_cannot_be_saved_meanwhile_is_logged_and_does_not_end_the_run(name, expected, tmp_path, caplog):
    config = make_config({**OPTIONS, "out": str(tmp_path)})
    path = config.folder() / name

    def on_round(record):
        if record["round"] == 1:
            path.unlink(missing_ok=True)
            path.mkdir()
        if record["round"] == ROUNDS - 1 and name == "rounds.jsonl":
            path.rmdir()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointBudget, "allows", lambda self: True)
        simulate(config, on_round)
    assert (config.folder() / "result.json").read_bytes() == expected
    if name != "checkpoint.pt":  # which is moved aside
        assert f"round 1 is not saved ({path}: Is a directory)" in caplog.text
        assert "goes on after round 0" in caplog.text


def test_two_processes_that_start_the_same_run(expected, tmp_path):
    options = {**OPTIONS, "out": str(tmp_path)}
    folder = make_config(options).folder()
    both = [Apart(options), Apart({**options, "nodes": 3}, fresh=True)]
    said = [process.end() for process in both]
    assert "" in said
    assert set(said) <= {"", f"another process is working on {folder}"}
    assert (folder / "result.json").read_bytes() == expected


def test_a_run_that_another_process_has_is_left_as_it_is(runs, tmp_path):
    config = copy_of(runs, "begun", tmp_path)

    def content():
        return {path.name: path.read_bytes() for path in config.folder().iterdir()}

    with Recorder(config).alone():
        before = content()
        for fresh in (False, True):
            said = Apart({**OPTIONS, "nodes": 3, "out": config.out}, fresh=fresh).end()
            assert said == f"another process is working on {config.folder()}"
        assert content() == before
