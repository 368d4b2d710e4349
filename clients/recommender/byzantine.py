"""Byzantine users of a stateless recommender: what they do to the gradients of their own losses."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from flwr.common import RecordDict
from numpy.typing import NDArray

from byzflower.attacks import Batch, LocalAttack, LocalView, TensorColumns, TrainingAttack
from byzflower.clients.recommender.steering import Gradient, steered_gradient, used_rows
from byzflower.clients.settings import ClientSettings
from byzflower.models.stateless import ItemGradients, StatelessRecommender, UserItems
from byzflower.numerics.randomness import torch_generator
from byzflower.uploads.layout import Layout


def attacked(
    found: ItemGradients,
    users: UserItems,
    clients: Sequence[int],
    settings: ClientSettings,
    model: StatelessRecommender,
    tables: Layout,
    sent: torch.Tensor,
    server_round: int,
    state: RecordDict,
) -> tuple[ItemGradients, NDArray[np.float64]]:
    """Let the attack of the Byzantine users among some make their gradients.

    Args:
        found: everybody's gradients, as benign users compute them; may be overwritten.
        users: what they are of.
        clients: the users' ids.
        settings: of the run.
        model: the recommender, with the tables that were broadcast.
        tables: their layout.
        sent: (depth, d) tables and moments that were broadcast.
        server_round: from 1.
        state: of the node.

    Returns:
        The gradients, and of each user the share of its values that a LOCAL attack altered.
    """
    altered = np.zeros(len(clients))
    attack, byzantine = settings.make_attack(), settings.byzantine_ids()
    who = [i for i, client in enumerate(clients) if client in byzantine]
    if attack is None or not attack.active(server_round):
        return found, altered
    if isinstance(attack, LocalAttack):
        for i in who:
            generator = torch_generator(settings.seed, "attack", server_round, clients[i])
            altered[i] = _corrupt(attack, found, i, sent, generator)
    if isinstance(attack, TrainingAttack) and who:
        gradient = _gradient_at(model, settings.weight_decay)
        made = {
            i: steered_gradient(
                attack,
                sent[0],
                _pairs(users, i),
                gradient,
                [TensorColumns(*tensor) for tensor in tables.parameters],
                seed=settings.seed,
                server_round=server_round,
                client=clients[i],
                state=state,
                moments=sent[1:],
            )
            for i in who
        }
        found = _replaced(found, made)
    return found, altered


def _corrupt(
    attack: LocalAttack, found: ItemGradients, user: int, sent: torch.Tensor, generator: torch.Generator
) -> float:
    """Apply a LOCAL attack to the rows that a user touched, in place; returns the share that it altered."""
    dim, rows = found.values.shape[1], slice(found.splits[user], found.splits[user + 1])
    benign = found.values[rows].clone()
    touched = torch.from_numpy(found.rows[rows]).long()
    state = sent.view(len(sent), -1, dim)[:, touched].reshape(len(sent), -1)
    tensors = (TensorColumns("touched rows", tuple(benign.shape), slice(0, benign.numel())),)
    view = LocalView(benign.reshape(-1), state[0], tensors, generator, state[1:])
    found.values[rows] = attack.corrupt(view).view_as(benign)
    return float((found.values[rows] != benign).double().mean())


def _pairs(users: UserItems, user: int) -> Batch:
    """A user's items, and what each is compared with."""
    own, c = slice(users.splits[user], users.splits[user + 1]), users.per_item
    others = users.negatives[own.start * c : own.stop * c]
    return torch.tensor(users.items[own]).long(), torch.tensor(others).long().view(-1, c)


def _gradient_at(model: StatelessRecommender, reg: float) -> Gradient:
    """A user's gradient at any tables, in a copy of the model, which is all threads'."""
    twin = copy.deepcopy(model)

    def gradient(parameters: torch.Tensor, batch: Batch) -> torch.Tensor:
        items, order = batch[0].sort()
        if (items.diff() == 0).any():
            raise ValueError("a user's items must be distinct")
        torch.nn.utils.vector_to_parameters(parameters, twin.parameters())
        own, others = (part.numpy().astype(np.int32) for part in (items, batch[1][order].reshape(-1)))
        found = twin.gradients(UserItems(np.array([0, len(own)]), own, others), reg)
        full = torch.zeros(len(parameters) // found.values.shape[1], found.values.shape[1])
        full[torch.from_numpy(found.rows).long()] = found.values
        return full.view(-1)

    return gradient


def _replaced(found: ItemGradients, made: dict[int, torch.Tensor]) -> ItemGradients:
    """The same with other (d,) gradients of some users, of which the rows that are not 0 are kept."""
    sizes = np.diff(found.splits)
    rows = np.split(found.rows, found.splits[1:-1])
    values = [*torch.split(found.values, sizes.tolist())]
    for i, gradient in made.items():
        rows[i], values[i] = used_rows(gradient, found.values.shape[1])
        sizes[i] = len(rows[i])
    splits = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return ItemGradients(splits, np.concatenate(rows), torch.cat(values), found.losses)
