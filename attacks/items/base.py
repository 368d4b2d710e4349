"""What an attack on a recommender sees and makes: rows for items, not whole models."""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from byzflower.attacks.base import Attack, Knowledge

Indices = NDArray[np.int64]


class BenignRows(Protocol):
    """A round's benign rows by item, for OMNISCIENT attacks; computed when asked for; read-only."""

    @property
    def counts(self) -> torch.Tensor:
        """(m,) number of rows of each item."""

    @property
    def sums(self) -> torch.Tensor:
        """(m, d) their sum; 0 where there are none."""

    @property
    def std(self) -> torch.Tensor:
        """(m, d) their standard deviation (biased); 0 where there are none."""


@dataclass(frozen=True)
class ItemView:
    """What the adversary can show to an attack on m items in one round.

    Attributes:
        num_byzantine: f, how many uploads to make.
        popularity: (m,) number of benign users that have an item, as it is public.
        max_items: the largest number of items that any benign client uploads.
        table: (m, d) the item embeddings that were broadcast.
        benign: the benign rows; OMNISCIENT attacks only, like `dense`.
        dense: (n, w) benign gradients for parameters outside the item table.
        round: server round.
        generator: the attack's own randomness.
        memory: what the attack keeps from round to round; saved with the server's checkpoints.
    """

    num_byzantine: int
    popularity: torch.Tensor
    max_items: int
    table: torch.Tensor
    benign: BenignRows
    dense: torch.Tensor
    round: int
    generator: torch.Generator
    memory: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def means(self) -> torch.Tensor:
        """(m, d) mean benign row of each item; 0 where there is none."""
        return self.benign.sums / self.benign.counts.clamp(min=1)[:, None]


class CraftedRows(NamedTuple):
    """What the Byzantine clients upload.

    Attributes:
        chosen: (f, m) bool, which client sends a row for which item.
        rows: (m, d) the row of an item, whoever sends it, or (f, m, d).
    """

    chosen: torch.Tensor
    rows: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class ItemAttack(Attack):
    """Computes the rows of all Byzantine clients together. Before it begins they upload nothing.

    Attributes:
        poison_dense: whether to attack the parameters outside the item table, too: the benign gradients
            negated, so that they cancel the benign sum; else the attackers send zeros there.
    """

    knowledge: ClassVar[Knowledge] = Knowledge.OMNISCIENT
    poison_dense: bool = True

    @abstractmethod
    def craft(self, view: ItemView) -> CraftedRows:
        """Return the Byzantine clients' rows."""

    def craft_dense(self, view: ItemView) -> torch.Tensor:
        """Return the (w,) upload of each Byzantine client outside the item table, if it is poisoned."""
        return -view.dense.sum(dim=0) / view.num_byzantine


@dataclass(frozen=True, kw_only=True)
class ProfileAttack(Attack):
    """Trains like a benign user on a fake user's poisoned pairs."""

    knowledge: ClassVar[Knowledge] = Knowledge.DATA

    @abstractmethod
    def poison(
        self, positives: Indices, negatives: Indices, user: torch.Tensor, table: torch.Tensor
    ) -> tuple[Indices, Indices]:
        """Return the positive and negative items, in pairs, to train on.

        Args:
            positives: (p,) the fake user's items, distinct.
            negatives: (p,) items that it does not have.
            user: (d,) its embedding.
            table: (m, d) the item embeddings.
        """


def every_item(view: ItemView) -> torch.Tensor:
    """All items from everybody: (f, m) True."""
    return torch.ones(view.num_byzantine, len(view.popularity), dtype=torch.bool)


def touched_items(view: ItemView) -> torch.Tensor:
    """The items with benign rows, from everybody: (f, m)."""
    return (view.benign.counts > 0).expand(view.num_byzantine, -1)


@dataclass(frozen=True, kw_only=True)
class PopularItemsAttack(ItemAttack):
    """Base of attacks on items drawn by popularity.

    Attributes:
        max_items: how many each attacker poisons; 0 for as many as the busiest benign user uploads.
    """

    max_items: int = 0

    def __post_init__(self) -> None:
        """Check the parameters.

        Raises:
            ValueError: the number of items is negative.
        """
        super().__post_init__()
        if self.max_items < 0:
            raise ValueError(f"max_items must not be negative, got {self.max_items}")

    def choose(self, view: ItemView) -> torch.Tensor:
        """Which client poisons which item, (f, m): drawn without replacement, once, at the first call.

        Items that nobody has are never drawn.
        """
        if "chosen" not in view.memory:
            f, m = view.num_byzantine, len(view.popularity)
            weights = view.popularity.double().expand(f, m)
            count = min(self.max_items or view.max_items, int((view.popularity > 0).sum()))
            drawn = torch.multinomial(weights, count, replacement=False, generator=view.generator)
            view.memory["chosen"] = torch.zeros(f, m, dtype=torch.bool).scatter_(1, drawn, True)
        return view.memory["chosen"]
