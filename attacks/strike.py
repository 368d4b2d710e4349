"""STRIKE: hide within the skewed majority of the benign updates."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from byzflower.attacks.base import AttackView, CollusiveAttack, repeat
from byzflower.attacks.hiding import largest_step
from byzflower.numerics.reductions import gram, mean, mean_and_std, median, products, squared_distances


def majority_size(num_benign: int, num_clients: int, num_byzantine: int) -> int:
    """Return the size of the skewed majority among `num_benign` known rows.

    n - 2f of n - f benign rows (STRIKE's equation 14 and definition 2; one line of its Algorithm 1
    prints n - f); where fewer are known, the same share of them, at least 1.

    Raises:
        ValueError: n - 2f < 1.
    """
    n, f = num_clients, num_byzantine
    if n - 2 * f < 1:
        raise ValueError(f"STRIKE needs n - 2f >= 1, got n={n}, f={f}")
    return max(1, num_benign * (n - 2 * f) // (n - f))


def skewed_majority(benign: torch.Tensor, size: int) -> list[int]:
    """Return the `size` rows farthest along u = median - mean, ascending (STRIKE, stage 1).

    Ties, and u = 0, go to the lower indices.

    Args:
        benign: (m, d) benign pseudo-gradients.
        size: at most m.
    """
    mu = mean(benign)
    # Relative to the mean the order is the same, and large common parts take no digits away.
    scores = products(benign, median(benign) - mu, origin=mu)[:, 0].tolist()
    return sorted(sorted(range(len(benign)), key=lambda i: -scores[i])[:size])


def gradient_skew(benign: torch.Tensor, size: int) -> float:
    """Return ||mu_S - mu||^2 / max_{i,j in S} ||B_i - B_j||^2, S the skewed majority (definition 2).

    Args:
        benign: (m, d) benign pseudo-gradients.
        size: of S; 0 is returned where S has no extent.
    """
    majority = skewed_majority(benign, size)
    mu = mean(benign)
    inner = gram(benign, origin=mu)[majority][:, majority]
    extent = float(squared_distances(inner).max())
    return float(inner.mean()) / extent if extent > 0 else 0.0


def strike(benign: torch.Tensor, size: int, nu: float) -> torch.Tensor:
    """Return mu_S + nu alpha s * sigma_S, s = sign(mu_S - mu) (Liu, Chen and Lyu).

    alpha is the largest with max_{i in S} ||mu_S + alpha s * sigma_S - B_i|| <= max_{i,j in S}
    ||B_i - B_j||: exact, where the paper bisects. s is that of equation 19 and Algorithm 1; equation
    20 prints sign(mu_S).

    Args:
        benign: (m, d) benign pseudo-gradients.
        size: of the skewed majority S, 1 to m.
        nu: factor on the largest hidden step.

    Returns:
        (d,) the upload.
    """
    majority = skewed_majority(benign, size)
    centre, sigma = mean_and_std(benign, majority)
    direction = (centre - mean(benign)).sign_().mul_(sigma)
    alpha = _hidden_step(benign, majority, centre, direction)
    return centre.add_(direction, alpha=nu * alpha)


def _hidden_step(
    benign: torch.Tensor, majority: Sequence[int], centre: torch.Tensor, direction: torch.Tensor
) -> float:
    m = len(benign)
    inner = gram(benign, direction, origin=centre)
    rows = inner[majority][:, majority]
    slack = squared_distances(rows).max() - rows.diagonal()
    return largest_step(float(inner[m, m]), inner[m, majority], slack)


@dataclass(frozen=True, kw_only=True)
class STRIKE(CollusiveAttack):
    """Byzantine clients hide at the far edge of the skewed majority of the benign updates.

    Attributes:
        nu: strength; 1 just hides. The paper tries 0.25 to 2 in steps of 0.25.
    """

    nu: float = 1.0

    def craft(self, view: AttackView) -> torch.Tensor:
        """Apply `strike`.

        Raises:
            ValueError: n - 2f < 1.
        """
        size = majority_size(len(view.benign), view.num_clients, view.num_byzantine)
        return repeat(strike(view.benign, size, self.nu), view.num_byzantine)
