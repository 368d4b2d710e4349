"""A run that is killed at any moment, again and again, ends with the bytes of one that was not."""

import random
import time

import numpy as np
import pytest
from apart import Apart

from byzflower.server.config.tasks import make_config
from byzflower.server.engines.simulation import simulate

ROUNDS = 24
DIGITS = {"model": "mlp", "clients": 6, "byzantine": 2, "batches": 1, "strategy": "median", "attack": "alie"}
MOMENTS = {
    **DIGITS,
    "byzantine": 1,
    "attack": "gradientascent",
    "lr": 0.001,
    "strategy_options": "filter=mda",
}
USERS = {
    **{"dataset": "ml-100k", "model": "fism", "model_options": "dim=4", "clients": 24, "byzantine": 6},
    **{"attack": "camouflage", "strategy": "arfrs", "lr": 0.02},
}
ITEMS = {
    **{"task": "recommendation", "dataset": "synthetic-small", "strategy": "median"},
    **{"attack": "spattack-o-d", "eval_every": 5},
}
TOPK = {**DIGITS, "upload": "topk", "attack": "bitflip", "strategy": "safesparse"}

# Every kind of upload, and whatever the server, the adversary and the clients remember beside the model.
FEW = {
    "weights, a rule and an attack that remember": {
        **{**DIGITS, "strategy": "signguard", "strategy_options": "cosine=true"},
        **{"attack": "mimic", "attack_options": "warmup=6"},
    },
    "gradients, momentum of the clients, some of them sampled": {
        **{**DIGITS, "upload": "gradient", "local_momentum": 0.9, "strategy": "centeredclipping"},
        **{"attack": "rop", "fraction_train": 0.7, "byzantine": 1, "lr_decay_rounds": "5,15"},
    },
    "top-k with residuals": {**TOPK, "upload_options": "ratio=0.3,residual=true", "diagnostics": True},
    "moments of Adam": {**MOMENTS, "strategy": "arfrs"},
    "moments of recommenders": USERS,
    "items, Adam of the server": {**ITEMS, "server_optimizer": "adam", "attack": "spattack-o-s"},
    "items, a rule and an attack that remember": {
        **ITEMS,
        "strategy": "centeredclipping",
        "attack": "cluster",
    },
}
MORE = {
    "weights": DIGITS,
    "gradients": {**DIGITS, "upload": "gradient", "attack": "ipm", "strategy": "trimmedmean"},
    "nothing usable in many rounds": {
        **{**DIGITS, "strategy": "krum", "attack": "nan", "byzantine": 1, "fraction_train": 0.84},
        "max_skipped_rounds": 100,
    },
    "a rule with data of its own": {
        **DIGITS,
        "strategy": "fltrust",
        "root_samples": 20,
        "attack": "optimalipm",
    },
    "top-k, forged masks": {**TOPK, "mask_attack": "maskmimic", "upload_options": "ratio=0.2,half=true"},
    "moments of momentum SGD": {**MOMENTS, "strategy": "srfrs"},
    "moments of AdaGrad": {**MOMENTS, "strategy": "agrfrs"},
    "moments of RMSProp": {**MOMENTS, "strategy": "rrfrs"},
    "moments, a filter that remembers": {
        **MOMENTS,
        "strategy": "arfrs",
        "strategy_options": "filter=signguard",
    },
    "items, chosen once": {**ITEMS, "attack": "fedattack"},
    "items, noisy": {**ITEMS, "attack": "lie", "laplace": 0.01, "strategy": "norm"},
}


@pytest.fixture(scope="module")
def feedback(tmp_path_factory):
    """Two groups of users who rate their own items only, as files of ML-100K."""
    chance = np.random.default_rng(0)
    rated = [(user, item) for user in range(24) for item in chance.permutation(20)[:8] + 20 * (user % 2)]
    folder = tmp_path_factory.mktemp("data")
    (folder / "ml-100k").mkdir()
    (folder / "ml-100k" / "u.data").write_text("".join(f"{user}\t{item}\t3\t0\n" for user, item in rated))
    return str(folder)


def killed_and_finished(options, kills, seed):
    """Kill a run so many times, each a little further on, then let it end; returns its folder."""
    chance, folder = random.Random(seed), make_config(options).folder()
    records, done, killed = folder / "rounds.jsonl", 0, 0
    for i in range(kills):
        goal = chance.randint(done + 1, max(done + 1, (i + 1) * ROUNDS // (kills + 1)))
        run = Apart(options)
        while run.process.is_alive() and done < goal:
            time.sleep(0.002)
            done = records.read_bytes().count(b"\n") if records.exists() else 0
        time.sleep(chance.random() * 0.02)
        run.kill()
        killed += run.end() is None
        done = records.read_bytes().count(b"\n")
    assert killed == kills, "it ended before it was killed"
    assert (folder / "checkpoint.pt").exists()
    assert Apart(options).end() == ""
    return folder


def check(options, feedback, tmp_path, kills, seed):
    options = {**options, "rounds": ROUNDS, "engine": "inline", "nodes": 2}
    if options.get("dataset") == "ml-100k":
        options["data"] = feedback
    whole = simulate(make_config({**options, "out": str(tmp_path / "whole")})).recorder.folder
    parts = killed_and_finished({**options, "out": str(tmp_path / "parts")}, kills, seed)
    assert (parts / "result.json").read_bytes() == (whole / "result.json").read_bytes()
    assert (parts / "model.pt").read_bytes() == (whole / "model.pt").read_bytes()


@pytest.mark.parametrize("job", FEW)
def test_killed_runs_go_on_with_the_same_result(job, feedback, tmp_path):
    check(FEW[job], feedback, tmp_path, kills=2, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("job", [*FEW, *MORE])
def test_killed_runs_go_on_with_the_same_result_however_often(job, feedback, tmp_path):
    check({**FEW, **MORE}[job], feedback, tmp_path, kills=8, seed=2)
