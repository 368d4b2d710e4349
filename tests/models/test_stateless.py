"""FISM and FMF: gradients against autograd, scores against loops, batches against single users."""

import numpy as np
import pytest
import torch

from byzflower.models import STATELESS
from byzflower.models.build import build_stateless
from byzflower.models.stateless import UserItems

ITEMS = 12
TABLE = [[0, 3, 5], [7], [1, 2, 3, 4, 8, 11], [3, 9]]


def users(rows, per_item=2, seed=0):
    random = np.random.default_rng(seed)
    negatives = [random.choice(sorted(set(range(ITEMS)) - set(own)), len(own) * per_item) for own in rows]
    splits = np.concatenate([[0], np.cumsum([len(own) for own in rows])])
    return UserItems(
        splits, np.concatenate(rows).astype(np.int32), np.concatenate(negatives).astype(np.int32)
    )


def model(name):
    return build_stateless(name, ITEMS, seed=3, options={"dim": 5, "std": 0.5}).double()


def user_vector(module, name, own, without=None):
    if name == "fism":
        others = [k for k in own if k != without]
        total = sum((module.q[k] for k in others), torch.zeros(5, dtype=torch.float64))
        return total / max(len(others), 1)
    q = module.q.detach()
    weights = torch.ones(ITEMS, dtype=torch.float64)
    weights[own] += module.confidence
    ridge = module.ridge * torch.eye(5, dtype=torch.float64)
    return torch.linalg.solve(q.T @ (weights[:, None] * q) + ridge, q.T @ (weights * (weights > 1)))


def item_table(module, name):
    return module.p if name == "fism" else module.q


def loss_of(module, name, own, negatives, reg):
    """The paper's loss, term by term."""
    loss, per = 0, len(negatives) // len(own)
    table = item_table(module, name)
    for i, j in enumerate(own):
        for k in negatives[i * per : (i + 1) * per]:
            positive = table[j] @ user_vector(module, name, own, j)
            negative = table[int(k)] @ user_vector(module, name, own)
            loss = loss - torch.nn.functional.logsigmoid(positive - negative)
    touched = sorted({*own, *map(int, negatives)})
    squares = table[touched].square().sum() + (module.q[own].square().sum() if name == "fism" else 0)
    return loss, loss + reg / 2 * squares


@pytest.mark.parametrize("name", STATELESS)
@pytest.mark.parametrize("per_item", [1, 3])
def test_gradients_are_those_of_the_papers_loss(name, per_item):
    module, batch = model(name), users(TABLE, per_item)
    found = module.gradients(batch, reg=0.1)
    for u, own in enumerate(TABLE):
        negatives = batch.negatives[batch.splits[u] * per_item : batch.splits[u + 1] * per_item]
        ranking, loss = loss_of(module, name, own, negatives, 0.1)
        slopes = torch.autograd.grad(loss, list(module.parameters()))
        dense = torch.zeros(sum(map(len, slopes)), 5, dtype=torch.float64)
        mine = slice(found.splits[u], found.splits[u + 1])
        assert (np.diff(found.rows[mine]) > 0).all()
        dense[torch.from_numpy(found.rows[mine]).long()] = found.values[mine]
        torch.testing.assert_close(dense, torch.cat(slopes))
        assert float(found.losses[u]) == pytest.approx(ranking.item())


@pytest.mark.parametrize("name", STATELESS)
def test_a_batch_gives_every_user_the_bits_that_it_gets_alone(name):
    module = model(name).float()
    batch = users(TABLE, seed=1)
    together = module.gradients(batch, 0.01)
    for u in range(len(TABLE)):
        items = batch.items[batch.splits[u] : batch.splits[u + 1]]
        negatives = batch.negatives[2 * batch.splits[u] : 2 * batch.splits[u + 1]]
        alone = module.gradients(UserItems(np.array([0, len(items)]), items, negatives), 0.01)
        mine = slice(together.splits[u], together.splits[u + 1])
        assert torch.equal(together.values[mine], alone.values)
        assert torch.equal(together.losses[u : u + 1], alone.losses)


@pytest.mark.parametrize("name", STATELESS)
def test_scores_are_the_formulas(name):
    module, batch = model(name), users(TABLE)
    expected = torch.stack([item_table(module, name) @ user_vector(module, name, own) for own in TABLE])
    torch.testing.assert_close(module.scores(batch.splits, batch.items), expected.detach())


@pytest.mark.parametrize("name", STATELESS)
def test_vectors_depend_on_the_seed_alone(name):
    torch.manual_seed(5)
    one = build_stateless(name, ITEMS, seed=1)
    same, other = build_stateless(name, ITEMS, seed=1), build_stateless(name, ITEMS, seed=2)
    assert torch.equal(one.q, same.q)
    assert not torch.equal(one.q, other.q)
