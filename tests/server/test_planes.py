"""Clients of a round of moments in the plane: principal components, the record and the picture."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from byzflower.experiments.report.figures import planes_picture, to_svg
from byzflower.server.adversary.diagnostics import principal_plane
from byzflower.server.config.classification import RunConfig
from byzflower.server.engines.simulation import simulate


def test_the_plane_is_that_of_principal_component_analysis():
    rows = np.random.default_rng(0).normal(size=(9, 40)) * np.linspace(1, 5, 40)
    plane = np.array(principal_plane(torch.from_numpy(rows)))
    for own, other in zip(plane.T, PCA(2).fit_transform(rows).T, strict=True):
        assert np.allclose(own, other) or np.allclose(own, -other)
        assert own[np.abs(own).argmax()] > 0


@pytest.mark.parametrize("n", [1, 2, 5])
def test_what_does_not_vary_is_a_point(n):
    assert np.allclose(principal_plane(torch.ones(n, 3)), np.zeros((n, 2)), atol=1e-6)


def test_rounds_of_moments_are_drawn_on_request(tmp_path):
    options = {"model": "mlp", "clients": 6, "byzantine": 2, "rounds": 3, "engine": "inline", "lr": 0.01}
    attack = {
        "attack": "gradientascent",
        "strategy": "arfrs",
        "strategy_options": "filter=none",
        "embed_rounds": "2",
        "byzantine_set": "random",
    }
    config = RunConfig.make({**options, **attack, "max_samples": 200, "out": str(tmp_path)})
    history = simulate(config).result["history"]
    assert [r["round"] for r in history if "planes" in r] == [2]
    planes = history[2]["planes"]
    assert planes["byzantine"] == sorted(config.byzantine_ids())
    assert [np.shape(planes[what]) for what in ("parameters", "gradients")] == [(6, 2), (6, 2)]
    # Ascent is the descent of the same data mirrored: far from it in gradients, hardly in parameters.
    assert planes["parameters"] != planes["gradients"]
    assert "round 2" in to_svg(planes_picture(history, "a run"))
    assert planes_picture(history[:2], "none asked for") is None
