"""Nodes, cohorts and engines are details of execution: the same bits come out of all of them."""

import json
import threading

import numpy as np
import pytest
import torch

from byzflower.server.config.classification import RunConfig
from byzflower.server.engines.simulation import simulate

pytestmark = pytest.mark.compat

JOB = {
    "dataset": "digits",
    "model": "cnn",
    "clients": 6,
    "byzantine": 2,
    "attack": "alie",
    "strategy": "trimmedmean",
    "batches": 2,
    "rounds": 3,
    "engine": "inline",
}


def run(folder, **options):
    options = {**JOB, **options, "out": str(folder)}
    outcome = simulate(RunConfig.make(options))
    return outcome.result, outcome.recorder


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """One node per client: ordinary Flower."""
    return run(tmp_path_factory.mktemp("reference"), clients_per_node=1)[0]


@pytest.mark.parametrize("nodes", [1, 2, 4, 5, 6])
def test_cohorts_of_any_size_give_the_same_bits(nodes, reference, tmp_path):
    assert run(tmp_path, nodes=nodes)[0] == reference


@pytest.mark.ray
@pytest.mark.parametrize("layout", [{"clients_per_node": 1}, {"nodes": 2}], ids=["one per node", "cohorts"])
def test_ray_gives_the_same_bits(layout, reference, tmp_path):
    assert run(tmp_path, engine="ray", num_cpus=0.5, **layout)[0] == reference


@pytest.mark.parametrize("upload", ["weights", "gradient"])
@pytest.mark.parametrize("attack", ["labelflip", "gaussiannoise", "nan", "ropsparse", "none"])
def test_cohorts_do_not_matter_to_any_attack(attack, upload, tmp_path):
    options = {"attack": attack, "upload": upload, "local_momentum": 0.9, "partition": "dirichlet"}
    options["strategy"] = "median"
    one, many = (run(tmp_path / str(n), clients_per_node=n, **options)[0] for n in (1, 3))
    assert one == many


def test_the_same_seed_gives_the_same_file_and_another_seed_another(tmp_path):
    first, second, other = (
        run(tmp_path / name, nodes=2, seed=seed)[1] for name, seed in (("a", 7), ("b", 7), ("c", 8))
    )
    assert (first.folder / "result.json").read_bytes() == (second.folder / "result.json").read_bytes()
    assert first.result()["model"] != other.result()["model"]


def test_global_random_states_are_left_alone(tmp_path):
    torch.manual_seed(5)
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    run(tmp_path, rounds=1)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


@pytest.mark.parametrize(
    "options",
    [
        {"attack": "alie"},
        {"attack": "alie", "attack_options": "knowledge=colluding", "local_momentum": 0.9},
        {"upload": "gradient", "local_momentum": 0.5, "nodes": 3, "fraction_train": 0.7, "byzantine": 1},
        {"attack": "mimic", "attack_options": "warmup=3", "diagnostics": True},
        {"attack": "rop", "lr_decay_rounds": "2,4", "diagnostics": True, "upload": "gradient"},
        {"strategy": "signguard", "strategy_options": "cosine=true"},
        {"strategy": "fltrust", "attack": "optimalipm", "root_samples": 20},
    ],
    ids=[
        *("weights", "momentum", "gradient", "an attack with a memory", "decaying steps"),
        *("a rule with a memory", "a rule with data"),
    ],
)
def test_a_stopped_run_goes_on_with_the_same_result(options, tmp_path):
    expected, _ = run(tmp_path / "whole", rounds=6, **options)
    stop = {**JOB, **options, "rounds": 6, "out": str(tmp_path / "parts")}
    config = RunConfig.make(stop)
    for stop_at in (2, 3):
        outcome = interrupted(config, stop_at)
        assert outcome.interrupted
        assert not (outcome.recorder.folder / "result.json").exists()
    resumed = simulate(config)
    assert resumed.result == expected
    rounds = [
        json.loads(line)["round"]
        for line in (resumed.recorder.folder / "rounds.jsonl").read_text().splitlines()
    ]
    assert rounds == list(range(7))


def interrupted(config, stop_at):
    """Run until a round ends, as Ctrl-C would."""
    from byzflower.clients.app import app
    from byzflower.server.engines.inline import InlineGrid
    from byzflower.server.engines.simulation import node_count
    from byzflower.server.federation import federation
    from byzflower.server.recorder import Recorder

    stop = threading.Event()
    nodes = node_count(config, 2)
    grid = InlineGrid(app, nodes)

    def on_round(record):
        if record["round"] == stop_at:
            stop.set()

    try:
        return federation(config, nodes, Recorder(config)).run(grid, on_round, stop)
    finally:
        grid.close()


def test_a_finished_run_is_not_repeated(tmp_path):
    result, recorder = run(tmp_path)
    written = (recorder.folder / "model.pt").stat().st_mtime_ns
    assert run(tmp_path)[0] == json.loads((recorder.folder / "result.json").read_text())
    assert (recorder.folder / "model.pt").stat().st_mtime_ns == written
    assert result["rounds"] == 3


def test_clients_can_evaluate(tmp_path):
    _, recorder = run(tmp_path, evaluate_clients=True, nodes=2)
    scores = recorder.history[-1]["clients_evaluate"]
    assert set(scores) == {"loss", "accuracy", "top5"}
    assert 0 <= scores["accuracy"] <= scores["top5"] <= 1


def test_what_a_round_records(tmp_path):
    _, recorder = run(tmp_path, strategy="multikrum", byzantine=1, attack="ipm", attack_options="eps=10")
    last = recorder.history[-1]
    width = 4 * sum(a.numel() for a in torch.load(recorder.folder / "model.pt", weights_only=True).values())
    assert last["kept"] == 5
    assert last["precision"] == last["recall"] == 1.0
    assert last["bytes_up"] == last["bytes_down"] == 6 * width
    for part in ("round", "train", "attack", "decode", "aggregate", "evaluate"):
        assert last["seconds"][part] >= 0


def test_the_step_size_decays_after_the_given_rounds(tmp_path):
    options = {"rounds": 3, "upload": "gradient", "server_lr": 0.5, "strategy": "fedavg"}
    options |= {"attack": "none", "batches": 1, "batch_size": 1000, "diagnostics": True}
    whole, decayed = (
        run(tmp_path / name, lr_decay_rounds=steps, lr_decay=0.5, **options)[1]
        for name, steps in (("a", ""), ("b", "1,2"))
    )
    config = decayed.config
    assert [config.server_lr_in(r) for r in (1, 2, 3, 4)] == [0.5, 0.25, 0.125, 0.125]
    assert [whole.config.server_lr_in(r) for r in (1, 3)] == [0.5, 0.5]
    assert whole.history[1]["loss"] == decayed.history[1]["loss"]
    assert whole.history[2]["loss"] != decayed.history[2]["loss"]
    # FedAvg of nearly equal shares is nearly the honest mean, if the step size of each round is known.
    for record in decayed.history[1:]:
        assert record["diagnostics"]["error"] < 1e-3


@pytest.mark.parametrize("attack", ["labelflip", "bitflip", "ipm"])
def test_every_kind_of_attack_is_measured_if_asked(attack, tmp_path):
    result, recorder = run(tmp_path, attack=attack, diagnostics=True)
    first, *_, last = recorder.history[1:]
    always = {"cos-attack-mean", "perturbation", "skew", "error"}
    assert first["diagnostics"].keys() == always
    assert last["diagnostics"].keys() == always | {"cos-attack-previous", "cos-benign-previous"}
    assert result["history"][-1]["diagnostics"] == last["diagnostics"]
    assert last["seconds"]["diagnostics"] > 0
