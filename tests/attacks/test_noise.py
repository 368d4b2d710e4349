"""Random uploads have the moments they should have, and nothing but their seed decides them."""

import numpy as np
import pytest
import torch
from views import local_view, view

from byzflower.attacks import (
    AdditiveNoise,
    Gaussian,
    GaussianNoise,
    Inf,
    NaN,
    Scaling,
    TensorColumns,
    add_noise,
    random_model,
    scale,
)

D = 40_000


def test_gaussian_noise_has_the_moments_of_each_tensor():
    generator = torch.Generator().manual_seed(0)
    model = torch.cat(
        [5 + 0.1 * torch.randn(D, generator=generator), -1 + torch.randn(D, generator=generator)]
    )
    parts = [slice(0, D), slice(D, 2 * D)]
    drawn = random_model(model, parts, torch.Generator().manual_seed(1))
    for part in parts:
        assert drawn[part].mean() == pytest.approx(float(model[part].mean()), abs=0.03)
        assert drawn[part].std() == pytest.approx(float(model[part].std()), rel=0.02)
    assert abs(float(torch.corrcoef(torch.stack([drawn[:D], model[:D]]))[0, 1])) < 0.02
    whole = random_model(model, [slice(0, 2 * D)], torch.Generator().manual_seed(1))
    for part in parts:
        assert whole[part].mean() == pytest.approx(float(model.mean()), abs=0.06)
        assert whole[part].std() == pytest.approx(float(model.std()), rel=0.02)


@pytest.mark.parametrize("scope", ["tensor", "model"])
def test_gaussian_noise_is_about_the_local_model(scope):
    tensors = (TensorColumns("a", (D,), slice(0, D)), TensorColumns("b", (D, 1), slice(D, 2 * D)))
    model = torch.cat([torch.full((D,), 3.0), torch.full((D,), -3.0)])
    gradient = torch.cat([torch.full((D,), 1.0), torch.full((D,), -1.0)])  # local model: 2 and -2
    uploaded = model - GaussianNoise(scope=scope).corrupt(local_view(gradient, model, tensors))
    if scope == "tensor":  # no variance within a tensor
        torch.testing.assert_close(uploaded, model - gradient)
    else:
        assert uploaded[:D].mean() == pytest.approx(0, abs=0.05)
        assert uploaded.std() == pytest.approx(2, rel=0.02)


def test_unknown_scopes_and_sizes_are_refused():
    with pytest.raises(ValueError, match="scope must be tensor or model, got 'layer'"):
        GaussianNoise(scope="layer")
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="std must not be negative"):
            AdditiveNoise(std=wrong)


def test_additive_noise_and_scaling():
    g = torch.randn(D, generator=torch.Generator().manual_seed(2))
    noise = AdditiveNoise(std=0.5).corrupt(local_view(g)) - g
    assert noise.mean() == pytest.approx(0, abs=0.01)
    assert noise.std() == pytest.approx(0.5, rel=0.02)
    assert torch.equal(add_noise(g, 0.0, torch.Generator()), g)
    assert torch.equal(Scaling(factor=-7).corrupt(local_view(g)), -7 * g)
    assert torch.equal(scale(g, 1), g)


def test_uploads_that_are_no_numbers():
    g = torch.ones(4)
    assert Inf().corrupt(local_view(g)).tolist() == [float("inf")] * 4
    assert NaN().corrupt(local_view(g)).isnan().all()


def test_gaussian_is_fitted_to_each_coordinate():
    random = np.random.default_rng(3)
    x = torch.from_numpy((random.normal(size=(20, 3)) * [1, 10, 0] + [0, 5, 2]).astype(np.float32))
    crafted = Gaussian().craft(view(x, 5000, 5020)).double()
    np.testing.assert_allclose(crafted.mean(dim=0), x.double().mean(dim=0), atol=0.5)
    np.testing.assert_allclose(crafted.std(dim=0), x.double().std(dim=0), rtol=0.05)
    assert len(crafted[:, 0].unique()) > 4000


@pytest.mark.parametrize("cls", [AdditiveNoise, GaussianNoise])
def test_the_seed_decides_and_no_global_state(cls):
    g = torch.randn(50, generator=torch.Generator().manual_seed(4))
    model = torch.randn(50, generator=torch.Generator().manual_seed(5))
    before = torch.random.get_rng_state()
    one, same, other = (cls().corrupt(local_view(g, model, seed=s)) for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(before, torch.random.get_rng_state())
