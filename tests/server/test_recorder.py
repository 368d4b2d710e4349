"""What a run leaves behind, and how it goes on after any interruption."""

import json
import math
import tomllib

import numpy as np
import pytest
import torch

from byzflower.server.config import RunConfig
from byzflower.server.recorder import (
    Checkpoint,
    Recorder,
    RunBusy,
    detection,
    model_digest,
    summarise,
)
from byzflower.server.simulation import simulate

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
    written = tomllib.loads((Recorder(config).folder / "config.toml").read_text())
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
    recorder.round(record(1))
    recorder.checkpoint(Checkpoint(1, MODEL))
    assert not recorder.finished
    recorder.finish(NAMES, MODEL)
    assert Recorder(config).finished
    recorder.restart()
    assert not recorder.finished
    assert [path.name for path in recorder.folder.iterdir()] == ["config.toml"]


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
