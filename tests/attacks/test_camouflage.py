"""Camouflage: the same model from another gradient; gradient ascent: the rule obeyed, upwards."""

import numpy as np
import pytest
import torch
from views import local_view

from byzflower.attacks import Camouflage, GradientAscent, LocalView, camouflage
from byzflower.strategies import multi_krum
from byzflower.uploads.optimizers import Adam

ADAM = Adam(lr=0.01)


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def moments(d=5000):
    """Of gradients that went one way for long: there, many coordinates have a twin."""
    return noise(1, d) * 0.2 + 1, (noise(2, d) * 0.1 + 0.3).abs() * 0.2


def test_camouflage_is_the_papers_equation_where_the_step_is_the_same():
    m, v = moments()
    g = noise(3, len(m)) * 3
    b1, b2 = 0.9, 0.999
    a, w, x = (t.double().numpy() for t in (m, v, g))
    top = 2 * b1 * b2 * (1 - b1) * a * w + b2 * (1 - b1) ** 2 * w * x - b1**2 * (1 - b2) * a**2 * x
    bottom = b1**2 * (1 - b2) * a**2 + 2 * b1 * (1 - b1) * (1 - b2) * a * x - b2 * (1 - b1) ** 2 * w

    def step(x):
        return (b1 * a + (1 - b1) * x) / np.sqrt(b2 * w + (1 - b2) * x * x)

    twin = (top / bottom).astype(np.float32)
    same = np.abs(step(twin.astype(np.float64)) - step(x)) <= 1e-6 * np.abs(step(x))
    got = camouflage(g, m, v, b1, b2, 0.0).numpy()
    assert 0.01 < same.mean() < 0.99
    np.testing.assert_allclose(got, np.where(same, twin, g.numpy()), rtol=1e-5)


def test_theta_is_the_benign_one_and_the_rule_is_obeyed():
    m, v = moments()
    theta, g = noise(4, len(m)), noise(3, len(m)) * 3
    before = torch.stack([theta, m, v])
    lie = camouflage(g, m, v, ADAM.beta1, ADAM.beta2, ADAM.eps)
    benign, byzantine = ADAM.step(before, g, 50), ADAM.step(before, lie, 50)
    changed = lie != g
    assert changed.double().mean() > 0.01
    assert ((lie - g).abs()[changed] > 1e-3).double().mean() > 0.99
    assert (byzantine[0] - benign[0]).norm() <= 1e-6 * benign[0].norm()
    assert not torch.allclose(byzantine[1:], benign[1:])
    assert ADAM.obeyed(before, byzantine, 50, 1e-4).all()


def test_krum_sees_it_in_gradients_and_not_in_parameters():
    m, v = moments()
    before = torch.stack([noise(4, len(m)), m, v])
    honest = noise(3, 1, len(m)) * 3 + noise(5, 20, len(m)) * 0.3
    uploads = [camouflage(g, m, v, 0.9, 0.999, 1e-8) if i < 6 else g for i, g in enumerate(honest)]
    after = torch.stack([ADAM.step(before, g, 50) for g in uploads])
    as_if_honest = torch.stack([ADAM.step(before, g, 50)[0] for g in honest])
    by_parameters = multi_krum(after[:, 0] - before[0], 6).selected
    assert by_parameters.tolist() == multi_krum(as_if_honest - before[0], 6).selected.tolist()
    assert by_parameters[:6].any()
    recovered = torch.stack([ADAM.recover(before, upload) for upload in after])
    assert multi_krum(recovered, 6).selected.tolist() == [False] * 6 + [True] * 14


def test_coordinates_without_a_twin_stay():
    g = torch.tensor([1.0, -2.0, 0.5, 0.0])
    zero = torch.zeros(4)
    assert torch.equal(camouflage(g, zero, zero, 0.9, 0.999, 0.0), g)  # the twin would be -g: another step
    assert torch.equal(camouflage(g, zero, torch.ones(4), 0.9, 0.999, 1e-8), g)


def test_the_class_takes_the_moments_from_the_view_and_says_what_it_needs():
    m, v = moments(100)
    g = noise(3, 100) * 3
    view = LocalView(g, torch.zeros(100), (), torch.Generator(), torch.stack([m, v]))
    assert torch.equal(Camouflage().corrupt(view), camouflage(g, m, v, 0.9, 0.999, 1e-8))
    with pytest.raises(ValueError, match=r"camouflage needs Adam's 2 moments \(strategy arfrs\), got 0"):
        Camouflage().corrupt(local_view(g))
    with pytest.raises(ValueError, match=r"beta1 must be in \(0, 1\), got 1"):
        Camouflage(beta1=1)
    with pytest.raises(ValueError, match="eps must not be negative, got -1"):
        Camouflage(eps=-1)


def test_gradient_ascent_turns_the_gradient_round():
    g = noise(3, 10)
    assert torch.equal(GradientAscent().corrupt(local_view(g)), -g)
