"""What attackers may do with the masks of sparse uploads, whatever the values in them."""

from abc import abstractmethod
from dataclasses import dataclass

import torch

from byzflower.attacks.base import Attack, TensorColumns


@dataclass(frozen=True)
class PackView:
    """What the adversary can show of a round's sparse uploads.

    Attributes:
        benign: (m, d) benign pseudo-gradients, 0 in packs that were not sent.
        masks: (m, P) bool, the packs that each of them sent.
        pack_size: scalars in a pack; the last may have fewer.
        budget: how many packs a client sends.
        tensors: the model's tensors, together all d columns.
        generator: the attack's own randomness.
    """

    benign: torch.Tensor
    masks: torch.Tensor
    pack_size: int
    budget: int
    tensors: tuple[TensorColumns, ...]
    generator: torch.Generator

    def columns(self, masks: torch.Tensor) -> torch.Tensor:
        """Which of the d columns are in the packs of masks: (f, P) -> (f, d)."""
        return masks.repeat_interleave(self.pack_size, dim=1)[:, : self.benign.shape[1]]


class MaskAttack(Attack):
    """Chooses the packs that the Byzantine clients upload, and may disguise the values.

    It goes with any attack on the values: that one says what the attackers would upload if they sent
    everything. Without one they place their own benign updates.
    """

    @abstractmethod
    def place(self, crafted: torch.Tensor, view: PackView) -> tuple[torch.Tensor, torch.Tensor]:
        """Choose packs, and values in them.

        Args:
            crafted: (f, d) the pseudo-gradients that the attackers want to upload.
            view: of the benign uploads.

        Returns:
            (f, d) pseudo-gradients and (f, P) masks.
        """
