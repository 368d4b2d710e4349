"""Precision and recall against a loop, and recommenders in whole runs."""

import json

import numpy as np
import pytest
import torch

from byzflower.datasets import Interactions
from byzflower.server.config.checks import ConfigError
from byzflower.server.config.classification import RunConfig
from byzflower.server.engines.simulation import simulate
from byzflower.server.recommender_evaluation import rank_all_items


def table(rows, num_items):
    users = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    return Interactions.of_pairs(users, np.concatenate(rows).astype(int), len(rows), num_items)


class FixedScores:
    """A recommender with given scores for each table of items."""

    def __init__(self, scores, train):
        self.known = {tuple(train.of(u).tolist()): scores[u] for u in range(len(scores))}

    def scores(self, splits, items):
        parts = np.split(items, splits[1:-1])
        return torch.tensor(np.stack([self.known[tuple(part.tolist())] for part in parts]))


def test_precision_and_recall_are_those_of_a_loop():
    random = np.random.default_rng(0)
    known, held = [], []
    for u in range(30):
        items = random.permutation(40)[: 3 + u % 9]
        known.append([u, *(i for i in items[2:] if i != u)])
        held.append([] if u % 5 == 0 else [i for i in items[:2] if i != u])
    train, test = table(known, 40), table(held, 40)
    scores = random.normal(size=(30, 40))
    asked = np.arange(3, 30)
    got = rank_all_items(FixedScores(scores, train), train, test, asked)
    for k in range(1, 6):
        precision, recall = [], []
        for u in asked:
            if held[u]:
                ranked = [i for i in np.argsort(-scores[u]) if i not in known[u]]
                hits = len(set(ranked[:k]) & set(held[u]))
                precision.append(hits / k)
                recall.append(hits / len(set(held[u])))
        assert got[f"precision@{k}"] == pytest.approx(np.mean(precision))
        assert got[f"recall@{k}"] == pytest.approx(np.mean(recall))
    assert rank_all_items(FixedScores(scores, train), train, test, np.array([0, 5])) == {}


@pytest.fixture
def feedback(tmp_path):
    """A small table in ML-100K's format: two tastes."""
    random = np.random.default_rng(0)
    lines = []
    for user in range(24):
        lines += [f"{user}\t{item}\t3\t0" for item in random.permutation(20)[:8] + 20 * (user % 2)]
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    (folder / "u.data").write_text("\n".join(lines) + "\n")
    return str(tmp_path)


def config(feedback, tmp_path, **options):
    return RunConfig.make(
        {
            "dataset": "ml-100k",
            "data": feedback,
            "model": "fism",
            "model_options": "dim=4",
            "clients": 24,
            "byzantine": 6,
            "attack": "gradientascent",
            "strategy": "arfrs",
            "lr": 0.02,
            "weight_decay": 1e-4,
            "rounds": 4,
            "engine": "inline",
            "out": str(tmp_path / "runs"),
            **options,
        }
    )


@pytest.mark.parametrize("model", ["fism", "fmf"])
def test_users_learn_and_cohorts_give_the_bits_of_single_nodes(feedback, tmp_path, model):
    results = []
    for name, nodes in (("one", {"nodes": 1}), ("each", {"clients_per_node": 1})):
        options = {"model": model, "attack": "none", "rounds": 25, "name": name, **nodes}
        results.append(simulate(config(feedback, tmp_path, **options)).result)
    assert results[0] == results[1]
    history = results[0]["history"]
    assert results[0]["precision@5"] > history[0]["precision@5"]
    assert results[0]["quarantined"] == 0


def test_attackers_are_left_out_and_interrupted_runs_go_on(feedback, tmp_path):
    whole = simulate(config(feedback, tmp_path, rounds=6, name="whole")).result
    simulate(config(feedback, tmp_path, rounds=6, name="parts"), fresh=True)
    assert whole["kept"] == 18
    settings = config(feedback, tmp_path, rounds=6, name="parts")
    (settings.folder() / "result.json").unlink()  # the last checkpoint is of an earlier round
    assert simulate(settings).result == whole


def test_combinations_that_cannot_work_are_named(feedback, tmp_path):
    for options, text in (
        ({"model": "cnn"}, "recommenders' data set ml-100k needs one of the models fism, fmf"),
        ({"dataset": "digits"}, "classifiers' data set digits needs one of the models alexnet"),
        ({"strategy": "median"}, "data set ml-100k needs a strategy that keeps moments, as arfrs"),
        ({"attack": "labelflip"}, "attack labelflip needs a data set with labels"),
        ({"strategy_options": "filter=median"}, "filter Median neither selects nor weights clients"),
    ):
        with pytest.raises(ConfigError, match=text):
            config(feedback, tmp_path, **options)


def test_camouflaged_shares_are_recorded(feedback, tmp_path):
    result = simulate(config(feedback, tmp_path, attack="camouflage", rounds=12, name="camouflage"))
    lines = (result.recorder.folder / "rounds.jsonl").read_text().splitlines()
    shares = [json.loads(line)["train"]["altered"] for line in lines[1:]]
    assert max(shares) > 0
    assert result.result["quarantined"] == 0
