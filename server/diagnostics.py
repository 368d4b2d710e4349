"""How an attack lies among the benign updates: what the ROP and STRIKE papers report."""

import torch

from byzflower.attacks import gradient_skew, majority_size
from byzflower.attacks.rows import mean, products, squared_norms


def diagnose(
    benign: torch.Tensor,
    byzantine: torch.Tensor,
    previous: torch.Tensor | None,
    aggregate: torch.Tensor | None,
) -> dict[str, float]:
    """Measure one round.

    Args:
        benign: (m, d) benign pseudo-gradients, m >= 1.
        byzantine: (f, d) what the Byzantine clients uploaded.
        previous: (d,) what the server applied in the round before, if there was one.
        aggregate: (d,) what it applied in this round, if it did.

    Returns:
        What can be said of

        * ``cos-attack-mean``, ``cos-attack-previous``: mean cosine of the attackers' uploads with the
          benign mean and with the previous aggregate (ROP, tables II and III).
        * ``cos-benign-previous``: mean cosine of the benign uploads with the previous aggregate.
        * ``perturbation``: mean norm of the attackers' uploads minus the benign mean.
        * ``skew``: gamma of the benign uploads (STRIKE, definition 2), where n - 2f >= 1.
        * ``error``: distance of the aggregate from the benign mean.
    """
    m, f = len(benign), len(byzantine)
    mu = mean(benign)
    numbers = {}
    if f:
        numbers["cos-attack-mean"] = mean_cosine(byzantine, mu)
        numbers["perturbation"] = float(squared_norms(byzantine, origin=mu).sqrt().mean())
    if previous is not None:
        previous = previous.to(mu)
        numbers["cos-benign-previous"] = mean_cosine(benign, previous)
        if f:
            numbers["cos-attack-previous"] = mean_cosine(byzantine, previous)
    if m > f:
        numbers["skew"] = gradient_skew(benign, majority_size(m, m + f, f))
    if aggregate is not None:
        numbers["error"] = float(squared_norms(aggregate[None], origin=mu).sqrt())
    return numbers


def mean_cosine(rows: torch.Tensor, direction: torch.Tensor) -> float:
    """Mean cosine of (k, d) rows with a direction (d,); a zero vector's cosines are 0."""
    norms = (squared_norms(rows) * squared_norms(direction[None])).sqrt()
    cosines = products(rows, direction)[:, 0] / norms
    return float(cosines.nan_to_num_(nan=0.0).mean())
