"""Gradient ascent: step towards more loss, and follow the optimizer's rule in it."""

from dataclasses import dataclass

from byzflower.attacks.bit_flip import BitFlip


@dataclass(frozen=True, kw_only=True)
class GradientAscent(BitFlip):
    """Byzantine clients take the opposite of their own gradient, and compute moments and model from it.

    Under a strategy that keeps the optimizer's moments, what is uploaded obeys the optimizer's rule
    (the A-RFRS paper, section 5). Under any other it is bit flipping.
    """
