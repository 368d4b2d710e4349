"""Additive noise: a disturbed copy of the benign model."""

from dataclasses import dataclass

import torch

from byzflower.attacks.base import LocalAttack, LocalView, gaussian


def add_noise(gradient: torch.Tensor, std: float, generator: torch.Generator) -> torch.Tensor:
    """Return the (d,) pseudo-gradient of the client's own model plus N(0, std^2) in every coordinate.

    What is added to a model is taken from its pseudo-gradient, which is the same for a symmetric noise.
    """
    return gaussian(gradient, std, generator, 1)[0]


@dataclass(frozen=True, kw_only=True)
class AdditiveNoise(LocalAttack):
    """Byzantine clients add Gaussian noise to the model that they trained.

    A baseline of the A-RFRS paper, which gives no size.

    Attributes:
        std: standard deviation of the noise in every coordinate, at least 0.
    """

    std: float = 1.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        if not self.std >= 0:
            raise ValueError(f"std must not be negative, got {self.std}")

    def corrupt(self, view: LocalView) -> torch.Tensor:
        """Apply `add_noise`."""
        return add_noise(view.gradient, self.std, view.generator)
