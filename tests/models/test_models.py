"""Models: sizes, shapes, weights that depend on the seed alone, and no global random state touched."""

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from byzflower.datasets.torchvision_guard import import_torchvision
from byzflower.models import MODELS, build_model
from byzflower.models.resnet import Block


def vector(model):
    return torch.cat([tensor.flatten() for tensor in model.state_dict().values()])


SIZES = [
    ("mlp", (1, 28, 28), 10, 79_510),
    ("cnn", (1, 28, 28), 10, 431_080),
    ("leafcnn", (1, 28, 28), 62, 6_603_710),
    ("alexnet", (3, 32, 32), 10, 2_472_266),
    ("resnet9", (3, 32, 32), 100, 6_568_000 + 51_300),
    ("resnet18", (3, 224, 224), 1000, 11_689_512),
    ("resnet20", (3, 32, 32), 10, 269_722),
]


@pytest.mark.parametrize(("name", "shape", "classes", "count"), SIZES)
def test_sizes_are_those_of_the_literature(name, shape, classes, count):
    model = build_model(name, shape, classes)
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
    model = build_model(name, shape, classes).eval()
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


def test_every_model_has_a_known_size():
    assert {name for name, *_ in SIZES} == set(MODELS)


RESIDUAL = ["resnet9", "resnet18", "resnet20"]


@pytest.mark.parametrize("name", RESIDUAL)
def test_group_norm_has_as_many_parameters_and_no_buffers(name):
    batch, group = (build_model(name, (3, 32, 32), 10, options={"norm": norm}) for norm in ("batch", "group"))
    assert [p.shape for p in batch.parameters()] == [p.shape for p in group.parameters()]
    assert list(batch.buffers())
    assert not list(group.buffers())
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(group(x)[:1], group(x[:1]), rtol=1e-4, atol=1e-4)  # samples do not mix
    with pytest.raises(ValueError, match="norm must be batch or group, got 'layer'"):
        build_model(name, (3, 32, 32), 10, options={"norm": "layer"})


@pytest.mark.parametrize("name", [*RESIDUAL, "alexnet", "leafcnn"])
def test_every_parameter_is_trained(name):
    model = build_model(name, (3, 16, 16), 10)
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    F.cross_entropy(model(x), torch.tensor([0, 1, 2, 3])).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_resnet18_is_torchvisions():
    reference = import_torchvision("torchvision.models").resnet18(weights=None).eval()
    model = build_model("resnet18", (3, 64, 64), 1000).eval()
    model.load_state_dict(reference.state_dict())
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(model(x), reference(x), rtol=1e-4, atol=1e-4)


def test_a_shortcut_without_parameters_leaves_out_pixels_and_pads_channels():
    block = Block(4, 8, 2, "batch", projected=False).eval()
    x = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(6))
    torch.nn.init.zeros_(block.bn2.weight)
    out = block(x)
    assert out.shape == (1, 8, 3, 3)
    torch.testing.assert_close(out[:, 2:6], torch.relu(x[:, :, ::2, ::2]))
    assert (out[:, [0, 1, 6, 7]] == 0).all()
