"""Nodes that are killed, hang, raise, come late or come back, and a server that is killed."""

import json
import re
import time
from pathlib import Path

import pytest
from processes import REPOSITORY, ended_deployment

from byzflower.server.config.classification import RunConfig
from byzflower.server.engines.simulation import simulate

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(500)]

APP = Path(__file__).parent / "wire-app"


def wait_until(ready, seconds, alive=lambda: True):
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "it did not happen in time"
        assert alive()
        time.sleep(0.2)


def lines(record):
    """Complete lines of a file that may still be written to."""
    text = record.read_text() if record.is_file() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def test_nodes_that_fail_cost_their_own_part_of_the_round_only(deployment, tmp_path):
    """Round 2: node 2 raises, node 3 is killed at work, 4 joins meanwhile. Round 3: node 1 hangs."""
    record, sign = tmp_path / "record", tmp_path / "sign"
    scripts = ["", ",,hangs", ",raises", ",hangs"]
    configs = [{"behaviours": script} for script in scripts]
    deployment.start_nodes([*configs[:3], {**configs[3], "sign": str(sign)}])
    options = {"nodes": 4, "rounds": 4, "timeout": 25.0, "record": str(record)}
    run = deployment.start_run(APP, options)
    wait_until(sign.exists, 150)
    deployment.kill(deployment.nodes[3])
    deployment.start_node({"partition-id": 4, "num-partitions": 5})
    assert deployment.wait(run, 200) == "finished:completed"
    said = lines(record)
    assert [own["round"] for own in said] == [0, 1, 2, 3, 4]
    assert said[1]["clients"] == [0, 1, 2, 3]
    expected = {
        2: ({0, 1}, {2: "client raised.*no GPU", 3: "no reply"}),
        3: ({0, 2, 4}, {1: "no reply in time", 3: "no reply"}),
        4: ({0, 2, 4}, {1: "no reply", 3: "no reply"}),
    }
    for server_round, (heard, reasons) in expected.items():
        own = said[server_round]
        assert set(own["clients"]) == heard
        assert own["skipped"] is None
        rejections = dict(own["rejections"])
        gone = reasons.keys() - rejections.keys()  # once Flower has noticed, it is not asked any more
        assert gone <= ({3} if server_round > 2 else set())
        for client, reason in rejections.items():
            assert re.search(reasons[client], reason)
        assert own["b"] == [server_round] * 3


def test_a_server_that_was_killed_goes_on_from_its_last_round(tmp_path):
    options = {"clients": 3, "byzantine": 1, "attack": "ipm", "strategy": "median", "model": "mlp"}
    options |= {"rounds": 4, "batches": 2}
    whole = simulate(RunConfig.make({**options, "engine": "inline", "out": str(tmp_path / "simulated")}))
    real = {**options, "engine": "deployment", "out": str(tmp_path / "real")}
    config = RunConfig.make(real)
    said = {key.replace("_", "-"): value for key, value in real.items()}
    with ended_deployment(tmp_path / "first") as first:
        first.start_nodes([{}] * 3)
        first.start_run(REPOSITORY, said)
        wait_until(lambda: len(lines(config.folder() / "rounds.jsonl")) >= 3, 200)  # rounds 0, 1, 2
        first.kill(first.superlink)
    assert not (config.folder() / "result.json").exists()
    with ended_deployment(tmp_path / "second") as second:
        second.start_nodes([{}] * 3)
        second.run(REPOSITORY, said, timeout=200)
    result = json.loads((config.folder() / "result.json").read_text())
    assert result["model"] == whole.result["model"]
    assert [own["round"] for own in lines(config.folder() / "rounds.jsonl")] == [0, 1, 2, 3, 4]
    assert result["history"] == whole.result["history"]
