"""Attacks that train in a client's place, on a loss whose gradients are known."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from views import training_view

from byzflower.attacks import PGD, Neurotoxin, into_ball, least_moved

POINTS = torch.tensor([[3.0, 1.0, 0.0, 1.0], [1.0, 1.0, 5.0, -2.0]])


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=9), st.floats(1e-3, 1e3))
def test_into_the_ball_is_the_nearest_point(values, radius):
    g = torch.tensor(values)
    inside = into_ball(g, radius)
    norm = np.linalg.norm(g.double().numpy())
    if norm <= radius:
        assert inside is g
    else:
        np.testing.assert_allclose(inside.numpy(), g.numpy() * (radius / norm), rtol=1e-5, atol=1e-30)


@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=30), st.floats(0, 1, exclude_max=True))
def test_what_moved_least_is_what_is_left_of_a_sort(values, masked):
    change = torch.tensor(values)
    kept = least_moved(change, masked)
    count = min(int(np.ceil(masked * len(values) - 1e-9)), len(values) - 1)
    assert int((~kept).sum()) == count
    assert int(kept.sum()) >= 1
    if count:
        assert change[~kept].abs().min() >= change[kept].abs().max()


def test_projected_ascent_by_hand():
    view = training_view(POINTS)
    learned = np.zeros(4)
    for point in POINTS.numpy():
        learned = learned - 0.1 * ((1 - learned) - point)
        learned *= min(1, 0.25 / np.linalg.norm(learned))
    np.testing.assert_allclose(PGD(radius=0.25).train(view), learned, rtol=1e-6)
    assert np.linalg.norm(learned) == pytest.approx(0.25)
    np.testing.assert_allclose(PGD(radius=0.25, factor=3).train(view), 3 * learned, rtol=1e-6)
    free = PGD(radius=1e9).train(view)
    assert torch.equal(free, view.fit(view.batches(), alter=torch.neg))
    worse = [sum(float((w - x).square().sum()) for x in POINTS) for w in (view.model, view.model - free)]
    assert worse[1] > worse[0]


def test_neurotoxin_leaves_what_the_last_aggregate_moved_most():
    memory = {"broadcast": torch.tensor([1.0, 1.1, 0.0, 1.2])}  # moved by 0, 0.1, -1, 0.2
    view = training_view(POINTS, memory=memory)
    learned = Neurotoxin(masked=0.5).train(view)
    assert (learned != 0).tolist() == [True, False, False, False]
    assert learned[0] == view.fit(view.batches(), alter=torch.neg)[0]
    assert torch.equal(memory["broadcast"], view.model)
    assert torch.equal(
        Neurotoxin(masked=0).train(training_view(POINTS, memory=memory)),
        view.fit(view.batches(), alter=torch.neg),
    )


def test_neurotoxin_begins_with_its_own_gradient():
    memory = {}
    learned = Neurotoxin(masked=0.5).train(training_view(POINTS, memory=memory))
    clean = sum(1 - point for point in POINTS)  # -2, 0, -3, 3
    assert clean.tolist() == [-2, 0, -3, 3]
    assert (learned[2:] == 0).all()
    assert learned[0] != 0
    assert torch.equal(memory["broadcast"], torch.ones(4))


@pytest.mark.parametrize("radius", [0, -1, float("nan")])
def test_a_ball_has_a_radius(radius):
    with pytest.raises(ValueError, match="radius must be positive, got"):
        PGD(radius=radius)


@pytest.mark.parametrize("masked", [-0.1, 1, float("nan")])
def test_something_must_be_left(masked):
    with pytest.raises(ValueError, match=r"masked must be in \[0, 1\), got"):
        Neurotoxin(masked=masked)
