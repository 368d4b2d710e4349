"""One seed per run, one independent stream per use."""

import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from byzflower.numerics.randomness import numpy_generator, seed_for, torch_generator

pytestmark = pytest.mark.compat

PURPOSES = ["batches", "partition", "model", "adversary"]
# Text that could be mistaken for the other fields.
uses = st.tuples(
    st.integers(0, 2**63),
    st.sampled_from(PURPOSES) | st.text("ab/01", max_size=6),
    st.integers(0, 10**6),
    st.integers(0, 2**64),
)


def every_use(seeds=2, rounds=20, clients=50):
    return [
        (seed, purpose, server_round, client)
        for seed in range(seeds)
        for purpose in PURPOSES
        for server_round in range(rounds)
        for client in range(clients)
    ]


@given(uses)
def test_seeds_are_in_range_for_every_generator(use):
    seed = seed_for(*use)
    assert 0 <= seed < 2**63
    assert seed_for(*use) == seed
    numpy_generator(*use)
    torch_generator(*use)


@given(uses, uses)
def test_different_uses_have_different_seeds(one, other):
    assume(one != other)
    assert seed_for(*one) != seed_for(*other)


def test_all_seeds_of_a_run_are_different_and_fill_the_range():
    seeds = [seed_for(*use) for use in every_use()]
    assert len(set(seeds)) == len(seeds)
    for bit in range(63):
        assert 0.4 < np.mean([seed >> bit & 1 for seed in seeds]) < 0.6


def test_seeds_are_the_same_in_every_process():
    code = (
        "from byzflower.numerics.randomness import seed_for\n"
        "print([seed_for(s, p, r, c) for s, p, r, c in "
        "[(1, 'batches', 2, 3), (2**40, 'model', 0, 0), (0, 'é', 10**6, 2**60)]])"
    )
    here = [seed_for(*use) for use in [(1, "batches", 2, 3), (2**40, "model", 0, 0), (0, "é", 10**6, 2**60)]]
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-X", "utf8", "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        )
        assert done.stdout.strip() == str(here)


@pytest.mark.parametrize(
    "draw",
    [
        lambda *use: numpy_generator(*use).normal(size=500),
        lambda *use: torch.randn(500, generator=torch_generator(*use)).numpy(),
    ],
    ids=["numpy", "torch"],
)
def test_streams_repeat_and_do_not_resemble_each_other(draw):
    uses = [(1, p, r, c) for p in PURPOSES[:2] for r in range(4) for c in range(10)]
    streams = np.stack([draw(*use) for use in uses])
    assert np.array_equal(streams[3], draw(*uses[3]))
    correlations = np.abs(np.corrcoef(streams) - np.eye(len(uses)))
    assert correlations.max() < 0.25


def test_global_random_states_are_left_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    numpy_generator(1, "a").random()
    torch.rand(3, generator=torch_generator(1, "a"))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert random.getstate() == before[2]
