"""Two new attacks."""

from dataclasses import dataclass

import torch

from byzflower.attacks import AttackView, CollusiveAttack, LocalAttack, LocalView


@dataclass(frozen=True, kw_only=True)
class Opposite(CollusiveAttack):
    """All Byzantine clients upload the opposite of the benign median."""

    strength: float = 1.0

    def craft(self, view: AttackView) -> torch.Tensor:
        """Rewrite the uploads, as the adversary who sees all of them."""
        median = view.benign.median(dim=0).values
        return (-self.strength * median).expand(view.num_byzantine, -1)


@dataclass(frozen=True, kw_only=True)
class Forget(LocalAttack):
    """Each Byzantine client uploads nothing new."""

    def corrupt(self, view: LocalView) -> torch.Tensor:
        """Rewrite the client's own upload, in the client, so that this works in real deployments."""
        return torch.zeros_like(view.gradient)
