"""A user's one local step, in the hands of an attack on its own client."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from flwr.common import RecordDict

from byzflower.attacks import Batch, TensorColumns, TrainingAttack, TrainingView
from byzflower.clients.memory import attack_memory
from byzflower.numerics.randomness import torch_generator

Change = Callable[[torch.Tensor], torch.Tensor]
Gradient = Callable[[torch.Tensor, Batch], torch.Tensor]


def steered_gradient(
    attack: TrainingAttack,
    model: torch.Tensor,
    pairs: Batch,
    gradient: Gradient,
    tensors: Sequence[TensorColumns],
    *,
    seed: int,
    server_round: int,
    client: int,
    state: RecordDict,
    moments: torch.Tensor | None = None,
) -> torch.Tensor:
    """Let an attack make a user's (d,) gradient of all shared parameters.

    Args:
        attack: active this round.
        model: (d,) shared parameters that were broadcast.
        pairs: (p,) items of the user's, and (p, c) others.
        gradient: of the user's loss, by parameters and such pairs.
        tensors: of the model.
        seed: of the run.
        server_round: from 1.
        client: id of the user.
        state: of its node, where the attack's memory is kept.
        moments: (slots, d) that came with the model, if any.
    """

    def fit(
        batches: Iterable[Batch], *, alter: Change | None = None, project: Change | None = None
    ) -> torch.Tensor:
        gradients = [gradient(model, batch) for batch in batches]
        mean = torch.stack([g if alter is None else alter(g) for g in gradients]).mean(dim=0)
        return mean if project is None else project(mean)

    with attack_memory(state, client) as memory:
        view = TrainingView(
            round=server_round,
            client=client,
            model=model,
            moments=torch.empty(0, 0) if moments is None else moments,
            tensors=tuple(tensors),
            generator=torch_generator(seed, "attack", server_round, client),
            memory=memory,
            batches=lambda: [pairs],
            gradient=gradient,
            fit=fit,
        )
        return attack.train(view)


def used_rows(
    gradient: torch.Tensor, dim: int
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int32]], torch.Tensor]:
    """The rows of tables of width `dim` in which a (d,) gradient is not 0: (r,) ascending, and (r, dim)."""
    table = gradient.view(-1, dim)
    rows = (table != 0).any(dim=1).nonzero()[:, 0]
    return rows.numpy().astype(np.int32), table[rows]
