"""Attacks that do a Byzantine client's local training themselves."""

from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch

from byzflower.attacks.base import Attack, Knowledge, TensorColumns

# Classifiers: features and labels. Recommenders: (p,) distinct items that the user has, and (p, c) others.
Batch = tuple[torch.Tensor, torch.Tensor]
Change = Callable[[torch.Tensor], torch.Tensor]


class Fit(Protocol):
    """A client's ordinary local training, every step of which may be changed."""

    def __call__(
        self, batches: Iterable[Batch], *, alter: Change | None = None, project: Change | None = None
    ) -> torch.Tensor:
        """Train on batches, from the broadcast model and with the run's own local optimizer.

        Where clients upload gradients or moments, the only step is the mean gradient over the batches.

        Args:
            batches: to train on.
            alter: makes another (d,) gradient of each batch's, which the optimizer steps along.
            project: makes another (d,) pseudo-gradient of what was learned so far, after each step.

        Returns:
            (d,) the pseudo-gradient (or gradient) that was learned.
        """


@dataclass(frozen=True)
class TrainingView:
    """What a Byzantine client has at hand to train with in one round. Its tensors are on one device.

    Of a recommender the d columns are the shared parameters, all items' included; what a user keeps to itself
    is stepped as a benign user's.

    Attributes:
        round: server round, from 1.
        client: the client's logical id.
        model: (d,) the parameters that were broadcast.
        moments: (slots, d) the optimizer's moments that came with them; no rows if the server keeps none.
        tensors: the model's tensors, together all d columns.
        generator: the client's own randomness, on the CPU.
        memory: what the attack keeps from round to round, under names of its own choice; the client's node
            keeps it, and simulations save it with their checkpoints.
        batches: the client's own data, as a benign client would train on it this round; the same ones at each
            call.
        gradient: (d,) gradient of the client's loss of a batch, at any (d,) parameters: no weight decay, no
            clipping; `fit` is not affected.
        fit: the client's ordinary training.
        logits: the model's output for features at any (d,) parameters, as in evaluation, differentiable by
            both; None for recommenders.
    """

    round: int
    client: int
    model: torch.Tensor
    moments: torch.Tensor
    tensors: tuple[TensorColumns, ...]
    generator: torch.Generator
    memory: dict[str, torch.Tensor]
    batches: Callable[[], Iterable[Batch]]
    gradient: Callable[[torch.Tensor, Batch], torch.Tensor]
    fit: Fit
    logits: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None


class TrainingAttack(Attack):
    """Trains in a Byzantine client's place.

    It may poison the batches, change every gradient, constrain what is learned, or do something else
    altogether. What it returns is uploaded as it is, without local momentum. One that reads labels declares
    `needs`, and is then refused for recommenders.
    """

    knowledge: ClassVar[Knowledge] = Knowledge.LOCAL

    @abstractmethod
    def train(self, view: TrainingView) -> torch.Tensor:
        """Return the (d,) pseudo-gradient (or gradient) to upload."""
