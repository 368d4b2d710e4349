"""Mimic: all attackers copy one benign client, which gives what is particular to it more weight."""

from dataclasses import dataclass

import torch

from byzflower.attacks.base import AttackView, CollusiveAttack, gaussian, repeat
from byzflower.numerics.reductions import mean, products, squared_norms


def follow_drift(
    benign: torch.Tensor, centre: torch.Tensor, direction: torch.Tensor, rounds: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """One round of the power iteration for the direction in which benign updates differ most.

    Args:
        benign: (m, d) benign pseudo-gradients of this round.
        centre: (d,) mean of the rounds before.
        direction: (d,) unit vector found in the rounds before; before the first, any one.
        rounds: how many rounds there were before.

    Returns:
        The new mean and the new unit vector: both averages over the rounds (Karimireddy et al., 2022).
    """
    share = 1 / (rounds + 1)
    centre = centre + share * (mean(benign) - centre)
    along = products(benign, direction, origin=centre)[:, 0]
    largest = float(along.abs().max())
    if largest == 0:
        return centre, direction
    drift = torch.zeros_like(centre)
    for row, weight in zip(benign, (along / largest).tolist(), strict=True):
        drift.add_(row - centre, alpha=weight)
    return centre, _unit((1 - share) * direction + share * _unit(drift))


def _unit(vector: torch.Tensor) -> torch.Tensor:
    """The vector scaled to norm 1; zero stays zero."""
    norm = float(squared_norms(vector[None])) ** 0.5
    return vector / norm if norm else vector


@dataclass(frozen=True, kw_only=True)
class Mimic(CollusiveAttack):
    """Byzantine clients all copy the benign client that differs most from the others.

    That is argmax_i |<z, B_i - mean>| with the mean and the direction z of `follow_drift`, which are
    learnt in the first rounds of the attack and kept from then on; meanwhile z as known so far is used.

    Attributes:
        warmup: rounds of learning, at least 1.
        client: instead, always copy the benign update at this position (modulo their number).
    """

    warmup: int = 10
    client: int | None = None

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        if self.warmup < 1:
            raise ValueError(f"warmup must be at least 1, got {self.warmup}")

    def craft(self, view: AttackView) -> torch.Tensor:
        """Learn, while that lasts, and copy."""
        chosen = self._most_different(view) if self.client is None else self.client % len(view.benign)
        return repeat(view.benign[chosen], view.num_byzantine)

    def _most_different(self, view: AttackView) -> int:
        memory = view.memory
        if not memory:
            zero = torch.zeros_like(view.benign[0])
            start = _unit(gaussian(zero, 1.0, view.generator, 1)[0])
            memory.update(centre=zero, direction=start, rounds=torch.tensor(0))
        rounds = int(memory["rounds"])
        if rounds < self.warmup:
            centre, direction = follow_drift(view.benign, memory["centre"], memory["direction"], rounds)
            memory.update(centre=centre, direction=direction, rounds=torch.tensor(rounds + 1))
        scores = products(view.benign, memory["direction"], origin=memory["centre"])[:, 0].abs().tolist()
        return scores.index(max(scores))
