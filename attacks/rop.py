"""Relocated orthogonal perturbation: move away from the last aggregate at a right angle."""

import math
from dataclasses import dataclass

import torch

from byzflower.attacks.base import AttackView, CollusiveAttack, repeat
from byzflower.numerics.reductions import dot, mean, squared_norms

# Below this share of its norm, the remainder of the vector of ones is rounding: the reference is parallel.
_PARALLEL = 1e-6


def perturbation(reference: torch.Tensor, angle: float = 90.0) -> torch.Tensor:
    """Return the unit vector at `angle` degrees to the reference, in its plane with the vector of ones.

    ROP's Algorithm 3, lines 4 to 7: the ones less their projection on the reference, normalised. A zero
    reference takes nothing away; of one that is parallel to the ones nothing is left, and 0 is returned.

    Args:
        reference: (d,).
        angle: 90 for the paper's orthogonal perturbation, 270 for its opposite, 0 for the reference's
            own direction.
    """
    ones = torch.ones_like(reference)
    length = float(squared_norms(reference[None])) ** 0.5
    direction = reference / length if length else torch.zeros_like(reference)
    orthogonal = ones.sub_(direction, alpha=dot(ones, direction))
    rest = float(squared_norms(orthogonal[None])) ** 0.5
    if rest <= _PARALLEL * math.sqrt(len(reference)):
        orthogonal.zero_()
    else:
        orthogonal /= rest
    turn = math.radians(angle)
    return orthogonal.mul_(math.sin(turn)).add_(direction, alpha=math.cos(turn))


@dataclass(frozen=True, kw_only=True)
class ROP(CollusiveAttack):
    """Byzantine clients move the last aggregate at a right angle to the direction of training.

    The upload is m~ + z p, m~ the aggregate that the server applied last (the benign mean mbar in the
    first round) and p the `perturbation` of r = lam m~ + (1 - lam) mbar (Ozfatura et al., Algorithm 3).

    Attributes:
        z: length of the perturbation.
        lam: weight of m~ in the reference; at 1 only the server's broadcasts are needed.
        location: of m~ in where the perturbation starts, the rest being mbar (from the authors' code; 1
            is the paper).
        angle: of the perturbation to the reference in degrees (90 is the paper; the authors' code
            defaults to 270).
    """

    z: float = 1.0
    lam: float = 0.9
    location: float = 1.0
    angle: float = 90.0

    def craft(self, view: AttackView) -> torch.Tensor:
        """Compute the upload of all attackers."""
        mu = mean(view.benign)
        last = mu if view.previous_aggregate is None else view.previous_aggregate.to(mu)
        start = mu.lerp(last, self.location)
        return repeat(start.add_(self.perturb(mu.lerp(last, self.lam), view)), view.num_byzantine)

    def perturb(self, reference: torch.Tensor, view: AttackView) -> torch.Tensor:
        """Return what to add to m~: (d,) -> (d,)."""
        return perturbation(reference, self.angle).mul_(self.z)
