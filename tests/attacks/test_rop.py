"""ROP is orthogonal to what it should be; ROP-S does the same in few coordinates."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from views import view

from byzflower.attacks import ROP, ROPSparse, TensorColumns, perturbation, sensitive_columns
from byzflower.models import build_model
from byzflower.uploads import Layout


def vectors(d=(2, 60), count=1):
    def make(d, seed, offset):
        random = np.random.default_rng(seed)
        return torch.from_numpy(offset + random.normal(size=(count, d)).astype(np.float32))

    return st.builds(make, st.integers(*d), st.integers(0, 2**32), st.sampled_from([0.0, 1.0, -100.0]))


def slow_perturbation(reference, angle=90.0):
    r = reference.astype(float)
    p = np.ones(len(r))
    unit = np.zeros(len(r))
    if np.any(r):
        unit = r / np.linalg.norm(r)
        p = p - (p @ unit) * unit
    p = p / np.linalg.norm(p)
    return p * math.sin(math.radians(angle)) + unit * math.cos(math.radians(angle))


def slow_rop(benign, last, z=1.0, lam=0.9, location=1.0, angle=90.0):
    mu = benign.astype(float).mean(axis=0)
    last = mu if last is None else last.astype(float)
    reference = lam * last + (1 - lam) * mu
    return location * last + (1 - location) * mu + z * slow_perturbation(reference, angle)


@settings(max_examples=80, deadline=None)
@given(vectors(), st.sampled_from([90.0, 270.0, 45.0, 0.0, 180.0]))
def test_the_perturbation_is_a_unit_vector_at_its_angle(rows, angle):
    r = rows[0]
    p = perturbation(r, angle)
    tolerance = 1e-5 * math.sqrt(len(r)) / max(math.sin(math.acos(abs(float(ones_cosine(r))))), 1e-4)
    assert p.norm() == pytest.approx(1, abs=1e-3)
    cosine = float(p.double() @ r.double() / r.double().norm())
    assert cosine == pytest.approx(math.cos(math.radians(angle)), abs=max(1e-5, tolerance))


def ones_cosine(r):
    return min(float(r.double().sum() / r.double().norm() / math.sqrt(len(r))), 1.0)


def test_the_perturbation_has_the_sign_of_the_ones():
    r = torch.randn(50, generator=torch.Generator().manual_seed(0))
    assert perturbation(r).sum() > 0
    torch.testing.assert_close(perturbation(r, 270), -perturbation(r))
    torch.testing.assert_close(perturbation(r, 180), -r / r.norm())


def test_references_without_an_orthogonal_direction():
    assert perturbation(torch.zeros(4)).tolist() == [0.5] * 4
    for parallel in (torch.ones(1), torch.full((7,), -3.0), torch.full((1000,), 0.1)):
        assert perturbation(parallel).norm() < 1e-6


@settings(max_examples=60, deadline=None)
@given(
    vectors(d=(3, 40), count=6),
    st.floats(0, 10),
    st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([90.0, 270.0, 30.0]),
    st.booleans(),
)
def test_rop_against_its_definition(rows, z, lam, location, angle, first):
    benign, last = rows[1:], None if first else rows[0]
    attack = ROP(z=z, lam=lam, location=location, angle=angle)
    got = attack.craft(view(benign, previous_aggregate=last))
    expected = slow_rop(benign.numpy(), None if last is None else last.numpy(), z, lam, location, angle)
    if abs(ones_cosine(lam * (rows[0] if not first else benign.mean(0)) + (1 - lam) * benign.mean(0))) < 0.99:
        np.testing.assert_allclose(got[0], expected, rtol=1e-4, atol=1e-4 * max(1, np.abs(expected).max()))
    assert (got == got[0]).all()


def test_at_lambda_one_only_broadcasts_matter():
    last = torch.randn(9, generator=torch.Generator().manual_seed(1))
    one, other = (torch.randn(5, 9, generator=torch.Generator().manual_seed(s)) for s in (2, 3))
    attack = ROP(lam=1.0)
    crafted = [attack.craft(view(benign, previous_aggregate=last)) for benign in (one, other)]
    assert torch.equal(*crafted)
    # Tables II and III: close to the last aggregate in direction, and hardly told from it by angle.
    upload = crafted[0][0]
    assert torch.cosine_similarity(upload, last, dim=0) == pytest.approx(
        float(last.norm()) / math.sqrt(float(last.norm()) ** 2 + 1), abs=1e-5
    )


def tensors_of(name):
    module = build_model(name, (1, 8, 8), 10)
    layout = Layout.of({k: v.numpy() for k, v in module.state_dict().items()})
    return module, layout, tuple(TensorColumns(*tensor) for tensor in layout.parameters)


def test_the_sensitive_columns_are_those_of_the_first_and_last_layers_and_all_biases():
    module, layout, tensors = tensors_of("cnn")
    chosen = set(sensitive_columns(tensors).tolist())
    expected = {"conv1.weight", "output.weight", "conv1.bias", "conv2.bias", "hidden.bias", "output.bias"}
    wanted = [t for t in tensors if t.name in expected]
    assert {t.name for t in wanted} == expected
    assert chosen == {c for t in wanted for c in range(t.columns.start, t.columns.stop)}
    assert len(chosen) < layout.d
    assert sum(math.prod(t.shape) for t in tensors) == sum(p.numel() for p in module.parameters())


def test_normalisation_is_sensitive_and_buffers_are_no_tensors():
    module = torch.nn.Sequential(
        torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 5), torch.nn.Linear(5, 2)
    )
    layout = Layout.of({k: v.numpy() for k, v in module.state_dict().items()})
    tensors = tuple(TensorColumns(*tensor) for tensor in layout.parameters)
    assert not any("running" in t.name or "num_batches" in t.name for t in tensors)
    outside = set(range(layout.d)) - set(sensitive_columns(tensors).tolist())
    (middle,) = [t for t in tensors if t.name == "2.weight"]
    assert outside == set(range(middle.columns.start, middle.columns.stop))


def test_a_model_of_one_matrix_is_sensitive_all_over():
    assert sensitive_columns([TensorColumns("w", (2, 3), slice(0, 6))]).tolist() == list(range(6))
    with pytest.raises(ValueError, match="ROP-S needs to know the model's tensors"):
        sensitive_columns([])


@pytest.mark.parametrize("lam", [0.0, 0.9, 1.0])
def test_rop_sparse_against_its_definition(lam):
    _, layout, tensors = tensors_of("mlp")
    tensors = (
        *tensors[:1],
        TensorColumns("middle", (50, 20), slice(layout.d, layout.d + 1000)),
        *tensors[1:],
    )
    d = layout.d + 1000
    generator = torch.Generator().manual_seed(5)
    benign, last = torch.randn(4, d, generator=generator), torch.randn(d, generator=generator)
    got = ROPSparse(z=2.0, lam=lam).craft(view(benign, previous_aggregate=last, tensors=tensors))[0]
    mask = np.ones(d, bool)
    mask[layout.d :] = False
    reference = (lam * last + (1 - lam) * benign.mean(0)).numpy()
    expected = last.numpy().astype(float)
    expected[mask] += d / mask.sum() * 2.0 * slow_perturbation(reference[mask])
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(got[layout.d :], last[layout.d :])
    move = (got - last).double()
    assert abs(float(move @ torch.from_numpy(reference).double())) < 1e-4 * float(
        move.norm()
    ) * np.linalg.norm(reference)
