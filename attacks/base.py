"""What an attack is, what it knows, and when it acts."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, NamedTuple

import torch


class Knowledge(StrEnum):
    """What the attacker sees; it decides where the attack can run."""

    DATA = "data"
    """Its own data, which it poisons before training on it: in the Byzantine client."""
    LOCAL = "local"
    """Its own benign update, or all of its own training: in the Byzantine client."""
    COLLUDING = "colluding"
    """The benign updates of all Byzantine clients: in the adversary."""
    OMNISCIENT = "omniscient"
    """Every benign update and all former broadcasts: in the adversary."""


class Need(StrEnum):
    """What an attack needs that not every run has, in the words in which a run without it is refused."""

    LABELS = "a data set with labels"
    ADAM = "a strategy that keeps Adam's moments, as arfrs"


@dataclass(frozen=True, kw_only=True)
class Attack:
    """An attack's parameters. Outside of its window the Byzantine clients behave like benign ones.

    Attributes:
        start_round: first round of the attack, from 1.
        stop_round: last round of the attack; None for no end.
        needs: what it cannot be carried out without.
    """

    start_round: int = 1
    stop_round: int | None = None

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __post_init__(self) -> None:
        """Check the window.

        Raises:
            ValueError: an empty window.
        """
        if self.start_round < 1:
            raise ValueError(f"start_round must be at least 1, got {self.start_round}")
        if self.stop_round is not None and self.stop_round < self.start_round:
            raise ValueError(f"stop_round {self.stop_round} is before start_round {self.start_round}")

    def active(self, server_round: int) -> bool:
        """Whether the attack acts in this round."""
        return self.start_round <= server_round and (
            self.stop_round is None or server_round <= self.stop_round
        )


class DataAttack(Attack):
    """Poisons the training data of a Byzantine client."""

    knowledge: ClassVar[Knowledge] = Knowledge.DATA
    needs: ClassVar[frozenset[Need]] = frozenset({Need.LABELS})

    @abstractmethod
    def poison(
        self, features: torch.Tensor, labels: torch.Tensor, num_classes: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return poisoned copies of the client's features and labels."""


class TensorColumns(NamedTuple):
    """One of the model's trained tensors, and where it lies in a row.

    Attributes:
        name: in the model.
        shape: in the model.
        columns: of a row of d scalars.
    """

    name: str
    shape: tuple[int, ...]
    columns: slice


@dataclass(frozen=True)
class LocalView:
    """What a Byzantine client has at hand in one round.

    Attributes:
        gradient: (d,) its own benign pseudo-gradient (or gradient, or momentum: what it would upload).
        model: (d,) the global model that it was sent.
        tensors: the model's tensors, together all d columns.
        generator: the client's own randomness.
        moments: (slots, d) the optimizer's moments that it was sent with the model; no rows if the server
            keeps none.
    """

    gradient: torch.Tensor
    model: torch.Tensor
    tensors: tuple[TensorColumns, ...]
    generator: torch.Generator
    moments: torch.Tensor = field(default_factory=lambda: torch.empty(0, 0))


class LocalAttack(Attack):
    """Replaces a Byzantine client's own benign update."""

    knowledge: ClassVar[Knowledge] = Knowledge.LOCAL

    @abstractmethod
    def corrupt(self, view: LocalView) -> torch.Tensor:
        """Return the (d,) pseudo-gradient to upload."""


@dataclass(frozen=True)
class AttackView:
    """What the adversary can show to an attack in one round.

    Attributes:
        benign: (m, d) updates that the attack may know: all benign ones (OMNISCIENT) or the
            Byzantine clients' own benign ones (COLLUDING).
        num_byzantine: f, how many uploads to make.
        num_clients: n, uploads in this round in all.
        previous_aggregate: (d,) what the server applied last round, as two broadcasts reveal it;
            None in the first round.
        round: server round.
        generator: the attack's own randomness.
        tensors: the model's tensors, together all d columns.
        memory: what the attack keeps from round to round, under names of its own choice; it is saved
            and restored with the server's checkpoints.
        aggregate: what the server's own rule makes of this round's uploads with the given (f, d) ones
            of the Byzantine clients among them, (d,), NaN if it refuses them; None where that is not
            known (under COLLUDING, or around a strategy that is no `RobustStrategy`).
    """

    benign: torch.Tensor
    num_byzantine: int
    num_clients: int
    previous_aggregate: torch.Tensor | None
    round: int
    generator: torch.Generator
    tensors: tuple[TensorColumns, ...] = ()
    memory: dict[str, torch.Tensor] = field(default_factory=dict)
    aggregate: Callable[[torch.Tensor], torch.Tensor] | None = None


@dataclass(frozen=True, kw_only=True)
class CollusiveAttack(Attack):
    """Computes all Byzantine uploads together, from benign updates.

    Attributes:
        knowledge: OMNISCIENT, or COLLUDING to feed the attack with the attackers' own benign updates
            as its estimate of the benign ones.
    """

    knowledge: Knowledge = field(default=Knowledge.OMNISCIENT)

    def __post_init__(self) -> None:
        """Check the knowledge.

        Raises:
            ValueError: neither colluding nor omniscient.
        """
        super().__post_init__()
        if self.knowledge not in (Knowledge.COLLUDING, Knowledge.OMNISCIENT):
            raise ValueError(f"knowledge must be colluding or omniscient, got {self.knowledge!r}")
        object.__setattr__(self, "knowledge", Knowledge(self.knowledge))

    @abstractmethod
    def craft(self, view: AttackView) -> torch.Tensor:
        """Return the (f, d) pseudo-gradients that the Byzantine clients upload."""


def repeat(gradient: torch.Tensor, count: int) -> torch.Tensor:
    """The same upload from every Byzantine client: (d,) -> (count, d), without copying."""
    return gradient.expand(count, -1)


def gaussian(
    mean: torch.Tensor, std: torch.Tensor | float, generator: torch.Generator, count: int
) -> torch.Tensor:
    """`count` rows of independent normal numbers: (d,), (d,) -> (count, d).

    Drawn on the generator's device, so that a seed means the same numbers wherever the rows are.
    """
    noise = torch.randn(count, len(mean), dtype=mean.dtype, device=generator.device, generator=generator).to(
        mean.device
    )
    return noise.mul_(std).add_(mean)
