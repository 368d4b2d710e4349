"""Initial weights that depend on a seed alone."""

import threading
from collections.abc import Callable
from typing import TypeVar

import torch

M = TypeVar("M")

_global_generator = threading.Lock()


def seeded(seed: int, build: Callable[[], M]) -> M:
    """Build a model whose layers draw from torch's global generator, which is restored afterwards.

    Args:
        seed: of what they draw.
        build: makes the model.
    """
    with _global_generator, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs, too
        return build()
