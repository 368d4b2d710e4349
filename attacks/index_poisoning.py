"""Index poisoning: all attackers send the same packs, where they are the majority."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from byzflower.attacks.base import TensorColumns
from byzflower.attacks.masks import MaskAttack, PackView


def rarest_first(masks: torch.Tensor) -> torch.Tensor:
    """Packs in the order of how many of the (m, P) masks have them, fewest first; ties by position."""
    return masks.sum(dim=0).argsort(stable=True)


def head_packs(tensors: Sequence[TensorColumns], pack_size: int) -> torch.Tensor:
    """Packs of the classification head: the last tensor with two dimensions or more, and what follows it.

    Raises:
        ValueError: there is no such tensor.
    """
    large = [i for i, tensor in enumerate(tensors) if len(tensor.shape) > 1]
    if not large:
        raise ValueError("the model has no tensor with two dimensions: it has no head")
    head = tensors[large[-1] :]
    first, stop = head[0].columns.start, head[-1].columns.stop
    return torch.arange(first // pack_size, -(-stop // pack_size))


def parse_packs(text: str) -> torch.Tensor:
    """Parse "0-15+40" into packs 0 to 15 and 40.

    Raises:
        ValueError: not of this form.
    """
    packs: list[int] = []
    for part in text.split("+"):
        first, _, last = part.strip().partition("-")
        if not first.isdecimal() or not (last or first).isdecimal() or int(last or first) < int(first):
            raise ValueError(f'target must be rare, head, or packs as in "0-15+40", got {text!r}')
        packs += range(int(first), int(last or first) + 1)
    return torch.tensor(packs)


@dataclass(frozen=True, kw_only=True)
class IndexPoisoning(MaskAttack):
    """Byzantine clients all send the same packs: those of a target, and what most benign clients send.

    In a pack that few benign clients send the attackers are the majority (SafeSparse, theorem 1).

    Attributes:
        target: "rare" for the packs that the fewest benign clients send, "head" for those of the last
            layer, or packs by number, as in "0-15+40".
        share: how much of what a client may send is spent on the target, in (0, 1]. The rest goes to the
            packs that most benign clients send, which makes the mask look like theirs.
    """

    target: str = "rare"
    share: float = 1.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be in (0, 1], got {self.share}")
        if self.target not in ("rare", "head"):
            parse_packs(self.target)

    def place(self, crafted: torch.Tensor, view: PackView) -> tuple[torch.Tensor, torch.Tensor]:
        """Put all of the crafted values that fit into the target."""
        rare = rarest_first(view.masks)
        count = min(view.budget, max(1, round(self.share * view.budget)))
        mask = torch.zeros(view.masks.shape[1], dtype=torch.bool)
        mask[self._targets(view, rare)[:count]] = True
        popular = rare.flip(0)
        popular = popular[~mask[popular]]
        mask[popular[: view.budget - int(mask.sum())]] = True
        return crafted, mask.expand(len(crafted), -1)

    def _targets(self, view: PackView, rare: torch.Tensor) -> torch.Tensor:
        if self.target == "rare":
            return rare
        if self.target == "head":
            return head_packs(view.tensors, view.pack_size)
        packs = parse_packs(self.target)
        return packs[packs < len(rare)]
