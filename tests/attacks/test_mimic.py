"""Mimic copies a benign client, the one that differs most, and remembers what it learnt."""

import numpy as np
import pytest
import torch
from views import view

from byzflower.attacks import Mimic, follow_drift


def two_groups(seed, m=8, d=60, shift=5.0):
    """Benign rows of which the fifth is off along one direction that does not change."""
    x = torch.randn(m, d, generator=torch.Generator().manual_seed(seed))
    x[4] += shift * torch.ones(d) / d**0.5 * 3
    return x


def slow_follow(history, start):
    """The same recursion in float64 NumPy."""
    mean, z = np.zeros(history[0].shape[1]), start
    for t, x in enumerate(history):
        mean = (t * mean + x.mean(axis=0)) / (t + 1)
        centred = x - mean
        drift = centred.T @ (centred @ z)
        z = (t * z + drift / np.linalg.norm(drift)) / (t + 1)
        z = z / np.linalg.norm(z)
    return mean, z


def test_the_direction_is_that_of_the_power_iteration():
    history = [two_groups(seed).double() for seed in range(6)]
    start = torch.nn.functional.normalize(torch.randn(60, generator=torch.Generator().manual_seed(9)), dim=0)
    mean, z = torch.zeros(60).double(), start.double()
    for t, x in enumerate(history):
        mean, z = follow_drift(x, mean, z, t)
    expected_mean, expected = slow_follow([x.numpy() for x in history], start.double().numpy())
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(z, expected, rtol=1e-9, atol=1e-12)


def test_it_finds_the_client_that_differs():
    attack, memory = Mimic(warmup=5), {}
    for server_round in range(1, 12):
        x = two_groups(server_round)
        crafted = attack.craft(view(x, 3, round=server_round, memory=memory))
        assert crafted.shape == (3, 60)
        if server_round > 2:
            assert torch.equal(crafted[0], x[4])


def test_it_copies_one_of_the_rows_always():
    memory = {}
    for server_round in range(1, 8):
        x = torch.randn(5, 20, generator=torch.Generator().manual_seed(server_round))
        crafted = Mimic(warmup=3).craft(view(x, 4, memory=memory))
        assert any(torch.equal(crafted[0], row) for row in x)
        assert (crafted == crafted[0]).all()


def test_learning_ends_with_the_warmup():
    attack, memory = Mimic(warmup=2), {}
    kept = []
    for server_round in range(1, 5):
        attack.craft(view(two_groups(server_round), memory=memory))
        kept.append({name: value.clone() for name, value in memory.items()})
    assert [int(k["rounds"]) for k in kept] == [1, 2, 2, 2]
    assert not torch.equal(kept[0]["direction"], kept[1]["direction"])
    for name in kept[1]:
        assert torch.equal(kept[1][name], kept[3][name])


def test_equal_rows_teach_nothing_and_ties_go_to_the_first():
    memory = {}
    x = torch.ones(4, 6)
    for _ in range(3):
        assert torch.equal(Mimic().craft(view(x, memory=memory))[0], x[0])
    assert torch.isfinite(memory["direction"]).all()
    mirrored = torch.tensor([[1.0, 0], [-1, 0]])
    assert torch.equal(Mimic().craft(view(mirrored))[0], mirrored[0])


def test_a_fixed_client():
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    for client, row in [(0, 0), (3, 3), (7, 2)]:
        assert torch.equal(Mimic(client=client).craft(view(x))[1], x[row])
    with pytest.raises(ValueError, match="warmup must be at least 1, got 0"):
        Mimic(warmup=0)
