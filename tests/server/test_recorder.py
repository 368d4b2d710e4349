"""What a run leaves behind, and how it goes on after any interruption."""

import errno
import hashlib
import json
import math
import os
import shutil
import tomllib
from contextlib import suppress

import numpy as np
import pytest
import torch

from byzflower.server.checkpoints import Checkpoint
from byzflower.server.config.classification import RunConfig
from byzflower.server.engines.simulation import simulate
from byzflower.server.files import RunBusy, RunFolderError
from byzflower.server.recorder import Recorder, detection, model_digest, summarise
from byzflower.server.results import read_result, read_rounds

NAMES = ["w", "running_mean", "steps"]
MODEL = [np.arange(6, dtype=np.float32).reshape(2, 3), np.full(3, 0.5), np.array(77)]


def record(server_round, **more):
    return {
        "round": server_round,
        "accuracy": 0.5 + server_round / 100,
        "loss": 1.0 / server_round,
        "info": {"distance": 2.5},
        "quarantined": [{"client": 1, "reason": 'said "}" and {"}'}],
        "seconds": {"round": 3.25, "server": 0.5},
        "train": {"loss": 2.0},
        **more,
    }


@pytest.fixture
def config(tmp_path):
    return RunConfig(out=str(tmp_path))


@pytest.fixture
def recorder(config):
    return Recorder(config)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def lines(recorder):
    return [json.loads(line) for line in (recorder.folder / "rounds.jsonl").read_text().splitlines()]


def test_folders_tell_configurations_and_seeds_apart(tmp_path, config):
    others = [{}, {"seed": 2}, {"lr": 0.5}, {"name": "mine"}]
    folders = [Recorder(RunConfig(out=str(tmp_path), **other)).folder for other in others]
    assert len(set(folders)) == len(others)
    assert folders[0] == tmp_path / "digits-ipm-multikrum" / f"{config.config_hash()}-1"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"attack_options": "eps=2.5,stop_round=3", "strategy_options": "weighted=true", "seed": 9},
        {"attack": "none", "strategy": "median", "max_client_weight": 0.25},
        {"attack": "alie", "attack_options": "z=none,stop_round=none"},
    ],
)
def test_the_written_configuration_can_be_run_again(options, tmp_path):
    config = RunConfig.make({"out": str(tmp_path), **options})
    recorder = Recorder(config)
    with recorder.alone():
        written = tomllib.loads((recorder.folder / "config.toml").read_text())
    again = RunConfig.make(written)
    assert again == config
    assert again.config_hash() == config.config_hash()


def test_json_has_null_for_what_is_not_a_number(recorder):
    odd = record(1, loss=math.nan, info={"a": [math.inf, 1.5, (-math.inf,)]}, more=np.float64("nan"))
    recorder.round(odd)
    (line,) = lines(recorder)
    assert line["loss"] is line["more"] is None
    assert line["info"] == {"a": [None, 1.5, [None]]}
    recorder.finish(NAMES, MODEL)
    text = (recorder.folder / "result.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert recorder.result()["loss"] is None


def test_a_run_is_one_process_at_a_time(config):
    with Recorder(config).alone():
        with pytest.raises(RunBusy, match="another process is working on "), Recorder(config).alone():
            pass
        with pytest.raises(RunBusy):
            simulate(config)
    with Recorder(config).alone():
        pass


def test_nothing_is_written_beside_the_process_that_has_the_run(config, recorder):
    with recorder.alone():
        recorder.round(record(1))
        recorder.checkpoint(Checkpoint(1, MODEL))
        before = files(recorder.folder)
        for fresh in (False, True):
            with pytest.raises(RunBusy):
                simulate(config.model_copy(update={"nodes": 7}), fresh=fresh)
        assert files(recorder.folder) == before
    with Recorder(config.model_copy(update={"nodes": 7})).alone():
        assert b"nodes = 7" in files(recorder.folder)["config.toml"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    for out, said in (("file", "Not a directory"), ("x" * 300, "File name too long")):
        with pytest.raises(RunFolderError, match=said):
            Recorder(RunConfig(out=str(tmp_path / out)))


def test_a_finished_run_says_the_same_when_it_is_read_again(config, recorder):
    recorder.round(record(1, loss=math.nan, selected=[1, 2]))
    said = recorder.finish(NAMES, MODEL)
    assert said == Recorder(config).result()


def test_appending_may_be_interrupted_anywhere(config):
    recorder = Recorder(config)
    for server_round in (1, 2):
        recorder.round(record(server_round))
        recorder.checkpoint(Checkpoint(server_round, MODEL))
    path = recorder.folder / "rounds.jsonl"
    whole = path.read_text()
    recorder.round(record(3))
    last = path.read_text().removeprefix(whole)
    for end in range(len(last) + 1):
        path.write_text(whole + last[:end])
        resumed = Recorder(config)
        assert resumed.resume().round == 2
        assert [r["round"] for r in resumed.history] == [1, 2]
        assert path.read_text() == whole
        resumed.round(record(3))
        assert path.read_text() == whole + last


def test_rounds_after_the_checkpoint_are_forgotten(config, recorder):
    for server_round in (1, 2, 3, 4):
        recorder.round(record(server_round))
        if server_round == 2:
            recorder.checkpoint(Checkpoint(2, MODEL))
    resumed = Recorder(config)
    resumed.resume()
    assert resumed.history == lines(resumed) == [record(1), record(2)]


def test_a_checkpoint_comes_back_as_it_was(config, recorder):
    clients = {"momentum": {"3": np.ones(4, np.float32), "11": np.zeros(4, np.float32)}}
    for server_round in (1, 2):
        recorder.round(record(server_round))
        server = {"strategy.m": np.full((2, 2), float(server_round))}
        recorder.checkpoint(Checkpoint(server_round, MODEL, server, clients))
    loaded = Recorder(config).resume()
    assert loaded.round == 2
    for array, saved in zip(loaded.arrays, MODEL, strict=True):
        assert (array.dtype, array.shape, array.tobytes()) == (saved.dtype, saved.shape, saved.tobytes())
    assert loaded.server["strategy.m"].tolist() == [[2.0, 2.0], [2.0, 2.0]]
    assert {c: a.tolist() for c, a in loaded.clients["momentum"].items()} == {"3": [1] * 4, "11": [0] * 4}


def test_without_a_checkpoint_everything_starts_anew(config, recorder):
    recorder.round(record(1))
    assert Recorder(config).resume() is None
    assert not (recorder.folder / "rounds.jsonl").exists()


def test_restarting_forgets_everything_but_the_configuration(config, recorder):
    with recorder.alone():
        for server_round in (1, 2):
            recorder.round(record(server_round))
            recorder.checkpoint(Checkpoint(server_round, MODEL))
        assert not recorder.finished
        recorder.finish(NAMES, MODEL)
        assert Recorder(config).finished
        recorder.restart()
        assert not recorder.finished
    assert {path.name for path in recorder.folder.iterdir()} - {".lock"} == {"config.toml"}


ROUNDS = 5


def state(server_round):
    """Model and states after a round of `play`."""
    arrays = [np.full((2, 3), server_round / 3, np.float32), np.full(3, 0.5 * server_round), np.array(77)]
    return (
        arrays,
        {"strategy.m": np.arange(4.0) * server_round},
        {"momentum": {"3": np.full(2, server_round)}},
    )


def play(config):
    """A run in small, with a checkpoint after every round; one that cannot be written does not end it."""
    recorder = Recorder(config)
    checkpoint, arrays, done = recorder.resume(), state(0)[0], 0
    if checkpoint is not None:
        arrays, done = checkpoint.arrays, checkpoint.round
        for array, known in zip(arrays, state(done)[0], strict=True):
            assert np.array_equal(array, known)
        assert np.array_equal(checkpoint.server["strategy.m"], state(done)[1]["strategy.m"])
        assert np.array_equal(checkpoint.clients["momentum"]["3"], state(done)[2]["momentum"]["3"])
    for server_round in range(done + 1, ROUNDS + 1):
        arrays = state(server_round)[0]
        recorder.round(record(server_round, seconds={"round": 1.0}))
        try:
            recorder.checkpoint(Checkpoint(server_round, *state(server_round)))
        except RunFolderError:
            continue
    recorder.finish(NAMES, arrays)
    return files(recorder.folder)["result.json"]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return play(RunConfig(out=str(tmp_path_factory.mktemp("whole"))))


@pytest.fixture
def quick(monkeypatch):
    """Files need not really be on the disk."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


class PowerCut(BaseException):
    """Nothing catches it."""


def failing(monkeypatch, at, error, times=1):
    """Let so many file operations fail, from the one with this number on; returns a list of all."""
    count = []

    def wrapped(operation):
        def tried(*arguments, **options):
            count.append(operation)
            if at <= len(count) < at + times:
                raise error
            return operation(*arguments, **options)

        return tried

    for name in ("replace", "fsync", "truncate"):
        monkeypatch.setattr(os, name, wrapped(getattr(os, name)))
    return count


@pytest.mark.parametrize("start", [0, 3], ids=["from the beginning", "going on"])
def test_the_power_may_fail_at_any_step(start, config, expected, quick, monkeypatch):
    at, steps = 1, 1
    while at <= steps:
        recorder = Recorder(config)
        recorder.restart()
        for server_round in range(1, start + 1):
            recorder.round(record(server_round, seconds={"round": 1.0}))
            recorder.checkpoint(Checkpoint(server_round, *state(server_round)))
        with monkeypatch.context() as patch:
            count = failing(patch, at, PowerCut())
            try:
                play(config)
            except PowerCut:
                steps = max(steps, len(count)) + 1
        assert play(config) == expected
        at += 1
    assert steps > 20


@pytest.mark.parametrize("times", [1, 3, 1000])
def test_a_full_disk_costs_a_checkpoint_or_says_so_at_the_end(times, config, expected, quick, monkeypatch):
    full = OSError(errno.ENOSPC, "No space left on device", "somewhere")
    for at in range(1, 30, 1 if times == 1 else 4):
        Recorder(config).restart()
        with monkeypatch.context() as patch:
            failing(patch, at, full, times)
            with suppress(RunFolderError):
                assert play(config) == expected
        assert play(config) == expected


def test_records_that_could_not_be_written_are_written_with_the_next(recorder, monkeypatch, caplog):
    recorder.round(record(1))
    path = recorder.folder / "rounds.jsonl"
    whole = path.read_bytes()
    shutil.move(path, path.with_name("aside"))
    path.mkdir()
    for server_round in (2, 3):
        recorder.round(record(server_round))
    assert [r.message for r in caplog.records] == [
        f"{path}: Is a directory: records are kept in memory until they can be written"
    ]
    with pytest.raises(RunFolderError, match="Is a directory"):
        recorder.checkpoint(Checkpoint(3, MODEL))
    path.rmdir()
    path.write_bytes(whole + b'{"half')
    recorder.round(record(4))
    assert [r["round"] for r in lines(recorder)] == [1, 2, 3, 4]
    recorder.checkpoint(Checkpoint(4, MODEL))
    assert Recorder(recorder.config).resume().round == 4


def test_half_a_checkpoint_is_not_left_on_a_full_disk(recorder, monkeypatch):
    recorder.round(record(1))
    before = files(recorder.folder)
    failing(monkeypatch, 2, OSError(errno.ENOSPC, "No space left on device"))  # after the records
    with pytest.raises(RunFolderError, match=r"checkpoint\.pt: No space left"):
        recorder.checkpoint(Checkpoint(1, MODEL))
    assert files(recorder.folder) == before


@pytest.fixture
def two(config, recorder):
    """A folder with two checkpoints and a record after them."""
    for server_round in (1, 2, 3):
        recorder.round(record(server_round))
        if server_round < 3:
            recorder.checkpoint(Checkpoint(server_round, *state(server_round)))
    return recorder.folder


def where_it_goes_on(config):
    """Round, or None for the beginning; what is loaded must be what was saved."""
    resumed = Recorder(config)
    checkpoint = resumed.resume()
    if checkpoint is None:
        assert resumed.history == []
        return None
    arrays, server, clients = state(checkpoint.round)
    assert all(np.array_equal(a, b) for a, b in zip(checkpoint.arrays, arrays, strict=True))
    assert np.array_equal(checkpoint.server["strategy.m"], server["strategy.m"])
    assert np.array_equal(checkpoint.clients["momentum"]["3"], clients["momentum"]["3"])
    assert resumed.history == [record(r) for r in range(1, checkpoint.round + 1)]
    return checkpoint.round


def test_any_flipped_bit_of_the_last_checkpoint_leads_to_the_one_before(config, two, caplog):
    saved = files(two)
    content = saved["checkpoint.pt"]
    for position in [*range(0, 120, 3), *range(120, len(content), 97), len(content) - 1]:
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        for name, kept in saved.items():
            (two / name).write_bytes(kept)
        (two / "checkpoint.pt").write_bytes(damaged)
        caplog.clear()
        assert where_it_goes_on(config) == 1
        assert f"{two / 'checkpoint.pt'} " in caplog.text
        assert "going on from round 1" in caplog.text
        assert (two / "checkpoint.pt").read_bytes() == saved["checkpoint.older.pt"]


def test_any_cut_or_changed_record_is_seen(config, two):
    saved = files(two)
    text = saved["rounds.jsonl"]
    ends = [i + 1 for i, byte in enumerate(text) if byte == ord("\n")]
    for position in sorted({*range(0, len(text), 7), *ends[:-1], *(end - 1 for end in ends)}):
        flipped = bytearray(text)
        flipped[position] ^= 1 << position % 8
        for damaged in (bytes(flipped), text[:position]):
            for name, kept in saved.items():
                (two / name).write_bytes(kept)
            (two / "rounds.jsonl").write_bytes(damaged)
            if position < ends[0]:
                with pytest.raises(
                    RunFolderError, match=r"rounds\.jsonl is damaged before the end of round 2"
                ):
                    Recorder(config).resume()
            else:
                assert where_it_goes_on(config) == (1 if position < ends[1] else 2)


@pytest.mark.parametrize(
    ("damage", "round_left"),
    [
        (lambda folder: (folder / "checkpoint.pt").unlink(), 1),
        (lambda folder: (folder / "checkpoint.older.pt").unlink(), 2),
        (lambda folder: [path.unlink() for path in folder.glob("checkpoint*")], None),
        (
            lambda folder: [path.write_bytes(b"") for path in folder.glob("checkpoint*")],
            "checkpoint.pt is damaged",
        ),
        (lambda folder: (folder / "rounds.jsonl").unlink(), "rounds.jsonl is missing"),
        (lambda folder: (folder / "rounds.jsonl").write_bytes(b""), "rounds.jsonl is damaged"),
        (lambda folder: torch.save({"round": 2}, folder / "checkpoint.pt"), 1),
        (
            lambda folder: [torch.save({"round": 2}, path) for path in folder.glob("checkpoint*")],
            "was written by an earlier version, which kept no digests",
        ),
    ],
)
def test_what_is_left_decides_where_a_run_goes_on(damage, round_left, config, two):
    damage(two)
    if isinstance(round_left, str):
        with pytest.raises(
            RunFolderError, match=f"{round_left}.*--fresh, or deleting the folder, starts the run"
        ):
            Recorder(config).resume()
        Recorder(config).restart()
        assert where_it_goes_on(config) is None
    else:
        assert where_it_goes_on(config) == round_left


def test_what_is_no_checkpoint_of_this_version_is_refused_whatever_its_digest(config, two):
    (two / "checkpoint.older.pt").unlink()
    payload = b"no archive"
    head = f"byzflower checkpoint 1 {hashlib.sha256(payload).hexdigest()}\n"
    (two / "checkpoint.pt").write_bytes(head.encode() + payload)
    with pytest.raises(RunFolderError, match=r"checkpoint\.pt cannot be loaded"):
        Recorder(config).resume()


def test_another_runs_files_are_refused(config, two):
    other = Recorder(config.model_copy(update={"seed": 2}))
    other.round(record(1))
    other.checkpoint(Checkpoint(1, MODEL))
    other.finish(NAMES, MODEL)
    for name in ("rounds.jsonl", "checkpoint.pt", "result.json", "SHA256SUMS"):
        shutil.copy(other.folder / name, two)
    (two / "checkpoint.older.pt").unlink()
    assert not Recorder(config).finished
    with pytest.raises(RunFolderError, match=f"checkpoint.pt is another run's \\({other.folder.name}\\)"):
        Recorder(config).resume()


def test_a_damaged_result_is_none(config, recorder, caplog):
    recorder.round(record(1))
    said = recorder.finish(NAMES, MODEL)
    path = recorder.folder / "result.json"
    content = path.read_bytes()
    for position in range(0, len(content), 7):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        for damaged in (bytes(flipped), content[:position]):
            path.write_bytes(damaged)
            assert not recorder.finished
            with pytest.raises(RunFolderError, match=r"result\.json is damaged"):
                read_result(recorder.folder)
    assert "result.json is damaged" in caplog.text
    path.write_bytes(content)
    assert recorder.finished
    assert recorder.result() == said


def test_results_of_earlier_versions_have_no_digests_and_are_read(recorder):
    recorder.round(record(1))
    said = recorder.finish(NAMES, MODEL)
    (recorder.folder / "SHA256SUMS").unlink()
    assert recorder.finished
    assert recorder.result() == said
    assert read_rounds(recorder.folder) == [record(1)]
    for damaged in (b"", b"{", b"[]", b"{}", b"null", b'{"config": 1}', b"\xff"):
        (recorder.folder / "result.json").write_bytes(damaged)
        assert not recorder.finished


def test_the_digests_are_those_that_sha256sum_checks(recorder):
    recorder.round(record(1))
    recorder.finish(NAMES, MODEL)
    lines = (recorder.folder / "SHA256SUMS").read_text().splitlines()
    sums = dict(reversed(line.split("  ")) for line in lines)
    content = files(recorder.folder)
    assert sums == {name: hashlib.sha256(content[name]).hexdigest() for name in sums}
    assert sums.keys() == {"result.json", "model.pt", "rounds.jsonl"}
    (recorder.folder / "rounds.jsonl").write_bytes(content["rounds.jsonl"] * 2)
    with pytest.raises(RunFolderError, match=r"rounds\.jsonl is damaged"):
        read_rounds(recorder.folder)


def test_the_result_is_free_of_what_differs_between_machines(tmp_path):
    contents = []
    for machine, seconds in (("slow", 9.75), ("fast", 0.125)):
        recorder = Recorder(RunConfig(out=str(tmp_path / machine)))
        for server_round in (1, 2):
            recorder.round(record(server_round, seconds={"round": seconds}))
        recorder.finish(NAMES, MODEL)
        contents.append((recorder.folder / "result.json").read_bytes())
        assert lines(recorder)[0]["seconds"] == {"round": seconds}
    assert contents[0] == contents[1]
    assert b"seconds" not in contents[0]


def test_the_model_loads_as_weights_only(recorder):
    recorder.round(record(1))
    recorder.finish(NAMES, MODEL)
    state = torch.load(recorder.folder / "model.pt", weights_only=True)
    assert list(state) == NAMES
    for tensor, array in zip(state.values(), MODEL, strict=True):
        assert np.array_equal(tensor.numpy(), array)
        assert tensor.numpy().dtype == array.dtype


def test_results_sum_up_the_rounds():
    history = [
        {"round": 0, "accuracy": 0.1, "loss": 2.0, "top5": 0.5},
        {
            "round": 1,
            "accuracy": 0.9,
            "loss": 0.5,
            "kept": 6,
            "precision": 0.5,
            "recall": None,
            "skipped": None,
        },
        {
            "round": 2,
            "kept": 3,
            "precision": None,
            "recall": 1.0,
            "skipped": "too few",
            "quarantined": [{}, {}],
        },
        {
            "round": 3,
            "accuracy": 0.7,
            "loss": 0.75,
            "top5": 0.9,
            "kept": None,
            "precision": 1.0,
            "recall": 0.0,
        },
    ]
    result = summarise(history, ("accuracy", "top5", "loss"))
    assert result["history"] == history
    last = {"rounds": 3, "accuracy": 0.7, "top5": 0.9, "loss": 0.75}
    totals = {"best_accuracy": 0.9, "skipped": 1, "quarantined": 2}
    means = {"kept": 4.5, "precision": 0.75, "recall": 0.5}
    assert {**last, **totals, **means}.items() <= result.items()
    assert summarise([], ("accuracy",))["accuracy"] is None


def test_detection_is_precision_and_recall_where_there_is_something_to_divide_by():
    assert detection({1, 2}, {1, 2}) == (1, 1)
    assert detection({1, 2, 3, 4}, {1, 2}) == (0.5, 1)
    assert detection({1}, {1, 2, 3, 4}) == (1, 0.25)
    assert detection({5, 6}, {1, 2}) == (0, 0)
    assert detection(set(), {1, 2}) == (None, 0)
    assert detection({1, 2}, set()) == (0, None)
    assert detection(set(), set()) == (None, None)


def test_the_digest_depends_on_every_byte_and_not_on_how_they_lie_in_memory():
    digest = model_digest(MODEL)
    assert model_digest([np.asfortranarray(a) for a in MODEL]) == digest
    assert model_digest([a.copy() for a in MODEL]) == digest
    for i, array in enumerate(MODEL):
        for position in range(array.nbytes):
            changed = bytearray(array.tobytes())
            changed[position] ^= 1
            other = np.frombuffer(bytes(changed), array.dtype).reshape(array.shape)
            assert model_digest([*MODEL[:i], other, *MODEL[i + 1 :]]) != digest
