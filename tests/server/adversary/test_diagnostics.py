"""Pictures of gradient skew."""

import numpy as np
import pytest
import torch
from sklearn.manifold import LocallyLinearEmbedding

from byzflower.experiments.report.figures import skew_picture, to_svg
from byzflower.server.adversary.diagnostics import SMALLEST_PICTURE, embed
from byzflower.server.config.classification import RunConfig
from byzflower.server.engines.simulation import simulate


def rows(m=20, d=40, seed=0):
    return np.random.default_rng(seed).normal(size=(m, d)).astype(np.float32) ** 3 + 1


def slow_embedding(x, neighbours):
    """scikit-learn on the rows themselves, however long they are."""
    everything = np.vstack([x, x.mean(axis=0)]).astype(float)
    return LocallyLinearEmbedding(n_neighbors=neighbours, eigen_solver="dense").fit_transform(everything)


@pytest.mark.parametrize(("m", "neighbours"), [(20, 3), (40, 4), (4, 3)])
def test_the_rows_distances_say_enough(m, neighbours):
    x = rows(m)
    got = embed(torch.from_numpy(x), 3)
    plane = np.array([*got["points"], got["mean"]])
    slow = slow_embedding(x, neighbours)
    for own, other in zip(plane.T, slow.T, strict=True):
        assert abs(np.corrcoef(own, other)[0, 1]) > 0.999
        assert own[np.abs(own).argmax()] > 0


def test_the_majority_is_strikes():
    x = rows(7)
    x[5:] += 30  # the mean goes that way, the median does not
    assert embed(torch.from_numpy(x), 5)["majority"] == [0, 1, 2, 3, 4]
    assert embed(torch.from_numpy(x), 0)["majority"] == []


@pytest.mark.parametrize("x", [np.zeros((5, 3)), np.ones((SMALLEST_PICTURE, 1)), np.eye(6)])
def test_what_has_no_shape_does_no_harm(x):
    assert np.isfinite(embed(torch.from_numpy(x.astype(np.float32)), 2)["points"]).all()


def small(tmp_path, **options):
    base = {"model": "mlp", "clients": 8, "byzantine": 2, "rounds": 3, "engine": "inline", "batches": 1}
    return simulate(RunConfig.make({**base, "strategy": "fedavg", "out": str(tmp_path), **options}))


@pytest.mark.parametrize(("attack", "benign"), [("none", 8), ("bitflip", 6), ("strike", 6)])
def test_rounds_are_embedded_on_request(attack, benign, tmp_path):
    outcome = small(tmp_path, attack=attack, embed_rounds="1,3")
    history = outcome.result["history"]
    assert [r["round"] for r in history if "embedding" in r] == [1, 3]
    assert len(history[1]["embedding"]["points"]) == benign
    # f is 2 of n = 8: without an attack the majority is n - 2f of n - f, and the same share of 8.
    assert len(history[1]["embedding"]["majority"]) == {6: 4, 8: 8 * 4 // 6}[benign]
    assert all("diagnostics" not in record for record in history)
    svg = to_svg(skew_picture(history, "Skew & co"))
    assert "round 1" in svg
    assert "round 3" in svg
    assert "Skew &amp; co" in svg


def test_nothing_is_drawn_unasked(tmp_path):
    history = small(tmp_path, attack="strike").result["history"]
    assert all("embedding" not in record for record in history)
    assert skew_picture(history, "") is None


def test_without_an_attack_the_skew_is_that_of_the_clients_that_could_attack(tmp_path):
    for attack in ("none", "bitflip"):
        record = small(tmp_path, attack=attack, diagnostics=True).result["history"][-1]
        assert record["diagnostics"]["skew"] > 0


def test_too_few_uploads_make_no_picture(tmp_path):
    history = small(tmp_path, attack="bitflip", clients=5, embed_rounds="1").result["history"]
    assert all("embedding" not in record for record in history)
