"""One seed per run, one generator per use: no global random state is read or written."""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def seed_for(seed: int, purpose: str, round: int = 0, client: int = 0) -> int:
    """Derive the seed of one use of randomness from the run's seed.

    Every (purpose, round, client) gets an independent stream, so a result does not depend on the
    order in which clients are trained, nor on how many processes train them.

    Args:
        seed: the run's seed.
        purpose: what the numbers are for, e.g. ``"batches"``.
        round: server round, 0 for what happens once.
        client: logical client id, 0 for the server.

    Returns:
        An integer in [0, 2**63).
    """
    digest = hashlib.blake2b(f"{seed}/{purpose}/{round}/{client}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def numpy_generator(seed: int, purpose: str, round: int = 0, client: int = 0) -> np.random.Generator:
    """NumPy generator seeded by :func:`seed_for`."""
    return np.random.default_rng(seed_for(seed, purpose, round, client))


def torch_generator(
    seed: int, purpose: str, round: int = 0, client: int = 0, device: str = "cpu"
) -> "torch.Generator":
    """Torch generator on `device`, seeded by :func:`seed_for`."""
    import torch  # late: who draws with NumPy alone needs none

    return torch.Generator(device).manual_seed(seed_for(seed, purpose, round, client))
