"""Whole runs with real processes: SuperLink, SuperNodes, and the package's own app on them."""

import json

import numpy as np
import pytest
from certificates import make_keys
from processes import REPOSITORY, ended_deployment, sessions
from run_local import DeploymentError, tail

from byzflower.server.config.tasks import make_config
from byzflower.server.engines.simulation import simulate

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(400)]

CLIENTS = 4
COMMON = {"clients": CLIENTS, "byzantine": 1, "rounds": 3, "batches": 2, "model": "mlp"}
JOBS = {
    "dense uploads, Median": {"strategy": "median", "attack": "bitflip"},
    "moments uploads, A-RFRS": {
        "strategy": "arfrs",
        "strategy_options": "filter=mda",
        "lr": 0.001,
        "attack": "bitflip",
    },
    "top-k uploads, SafeSparse": {"strategy": "safesparse", "upload": "topk", "attack": "bitflip"},
}


def kebab(options):
    return {key.replace("_", "-"): value for key, value in options.items()}


def simulated(folder, **options):
    return simulate(make_config({**options, "engine": "inline", "out": str(folder)})).result


def result_of(real):
    return json.loads((make_config(real).folder() / "result.json").read_text())


@pytest.mark.compat
@pytest.mark.parametrize("job", JOBS)
def test_real_processes_give_the_simulations_bits(job, deployment, tmp_path):
    """In the simulation the settings make client 0 Byzantine, here its own node was told to be."""
    options = {**COMMON, **JOBS[job]}
    attacked = simulated(tmp_path / "attacked", **options)
    honest = simulated(tmp_path / "honest", **{**options, "attack": "none"})
    deployment.start_nodes([{"byzantine": True, "attack": options["attack"]}, *[{}] * (CLIENTS - 1)])
    real = {**options, "attack": "none", "engine": "deployment", "out": str(tmp_path / "real")}
    deployment.run(REPOSITORY, kebab(real), timeout=240)
    result = result_of(real)
    assert result["rounds"] == options["rounds"]
    assert result["quarantined"] == 0
    assert result["model"] == attacked["model"] != honest["model"]


@pytest.mark.compat
def test_recommenders_users_on_real_nodes_give_the_simulations_bits(deployment, tmp_path):
    """Each user is a node of its own, which its embedding never leaves."""
    random = np.random.default_rng(0)
    table = tmp_path / "data" / "ml-100k" / "u.data"
    table.parent.mkdir(parents=True)
    rated = [
        f"{user}\t{item}\t3\t{time}"
        for user in range(CLIENTS)
        for time, item in enumerate(random.permutation(40)[:9])
    ]
    table.write_text("\n".join([*rated, ""]))
    options = {
        "task": "recommendation",
        "dataset": "ml-100k",
        "data": str(tmp_path / "data"),
        "strategy": "median",
        "attack": "none",
        "rounds": 3,
        "candidates": 8,
    }
    expected = simulated(tmp_path / "simulated", **options)
    deployment.start_nodes([{}] * CLIENTS)
    real = {**options, "engine": "deployment", "out": str(tmp_path / "real")}
    deployment.run(REPOSITORY, kebab(real), timeout=240)
    result = result_of(real)
    assert result["model"] == expected["model"]
    assert result["history"][-1]["HR@10"] == expected["history"][-1]["HR@10"]


def test_tls_and_keys_let_in_whom_they_should(tmp_path):
    keys = make_keys(tmp_path / "keys", 3)
    assert all(path.stat().st_mode & 0o77 == 0 for path in (keys.key, *keys.nodes))
    options = {**COMMON, "clients": 2, "strategy": "median", "attack": "none", "rounds": 1}
    with ended_deployment(tmp_path / "deployment", keys=keys) as deployment:
        deployment.start_nodes([{}, {}])
        stranger = deployment.start_node({"partition-id": 2, "num-partitions": 2}, register=False)
        real = {**options, "engine": "deployment", "out": str(tmp_path / "real")}
        deployment.run(REPOSITORY, kebab(real), timeout=200)
        admitted = ["SuperNode ID" in tail(deployment.log(f"node-{i}")) for i in range(stranger + 1)]
        assert admitted == [True, True, False]
    result = result_of(real)
    assert result["history"][-1]["clients"] == 2
    assert result["model"] == simulated(tmp_path / "simulated", **options)["model"]


def test_a_failing_test_ends_its_processes_too(tmp_path):
    started = set()

    def fail():
        with ended_deployment(tmp_path) as running:
            running.start_nodes([{}])
            started.update({running.superlink.pid, running.nodes[0].pid})
            assert started <= sessions()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not started & sessions()


def test_a_run_that_fails_is_reported_with_its_reason(deployment, tmp_path):
    deployment.start_nodes([{}])
    options = {**COMMON, "clients": 2, "strategy": "median", "nodes": 1, "engine": "deployment"}
    limited = {**options, "max_round_bytes": 1000, "out": str(tmp_path)}
    with pytest.raises(DeploymentError, match=r"a round of 1 clients needs \d+ bytes .*max_round_bytes=1000"):
        deployment.run(REPOSITORY, kebab(limited), timeout=120)
