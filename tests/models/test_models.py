"""Models: sizes, shapes, weights that depend on the seed alone, and no global random state touched."""

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from byzflower.models import MODELS, build_model


def vector(model):
    return torch.cat([tensor.flatten() for tensor in model.state_dict().values()])


@pytest.mark.parametrize(("name", "count"), [("mlp", 79_510), ("cnn", 431_080)])
def test_sizes_are_those_of_the_literature(name, count):
    model = build_model(name, (1, 28, 28), 10)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("shape", "classes"),
    [
        ((1, 28, 28), 10),
        ((1, 8, 8), 10),
        ((3, 32, 32), 100),
        ((1, 15, 15), 2),
        ((1, 16, 16), 2),
        ((2, 9, 40), 3),
    ],
)
def test_every_image_gets_one_logit_per_class(name, shape, classes):
    model = build_model(name, shape, classes)
    for count in (1, 5):
        logits = model(torch.randn(count, *shape, generator=torch.Generator().manual_seed(0)))
        assert logits.shape == (count, classes)
        assert torch.isfinite(logits).all()
        assert logits.std() > 0


def test_the_mlp_is_two_matrices_with_a_ramp_between():
    model = build_model("mlp", (1, 4, 4), 3)
    x = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    w1, b1, w2, b2 = (p.detach().numpy() for p in model.parameters())
    expected = np.maximum(x.numpy().reshape(6, -1) @ w1.T + b1, 0) @ w2.T + b2
    np.testing.assert_allclose(model(x).detach(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("side", [28, 8])
def test_the_cnn_may_pool_before_its_ramps(side):
    model = build_model("cnn", (1, side, side), 10)
    x = torch.randn(4, 1, side, side, generator=torch.Generator().manual_seed(2))
    hidden = F.max_pool2d(torch.relu(model.conv1(x)), 2)
    hidden = F.max_pool2d(torch.relu(model.conv2(hidden)), 2)
    expected = model.output(torch.relu(model.hidden(hidden.flatten(1))))
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("name", MODELS)
def test_weights_depend_on_the_seed_alone(name):
    first = vector(build_model(name, (1, 8, 8), 10, seed=3))
    torch.rand(7)
    assert torch.equal(vector(build_model(name, (1, 8, 8), 10, seed=3)), first)
    assert not torch.equal(vector(build_model(name, (1, 8, 8), 10, seed=4)), first)


def test_large_seeds_are_taken():
    assert torch.isfinite(vector(build_model("mlp", (1, 8, 8), 10, seed=2**63 - 1))).all()


@pytest.mark.parametrize("name", MODELS)
def test_global_random_states_are_left_alone(name):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    build_model(name, (1, 28, 28), 10, seed=5)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert random.getstate() == before[2]


def test_the_random_states_of_gpus_are_left_alone(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    build_model("mlp", (1, 8, 8), 10, seed=6)
    assert seeded == []


def test_threads_that_build_at_once_do_not_disturb_each_other():
    expected = vector(build_model("mlp", (1, 28, 28), 10, seed=7))
    before = torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        models = list(pool.map(lambda _: build_model("mlp", (1, 28, 28), 10, seed=7), range(80)))
    assert all(torch.equal(vector(model), expected) for model in models)
    assert torch.equal(torch.get_rng_state(), before)
