"""Gradients of recommenders against autograd on one user's loss written out."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from byzflower.models.gnn import GNN
from byzflower.models.mf import MF
from byzflower.models.profiles import Profiles

M, REG = 9, 0.1
USERS = [([0, 3, 5], [1, 1, 7]), ([2], [8]), ([], []), ([8, 1], [0, 2])]


def profiles(users=USERS):
    positives, negatives = ([np.array(own, np.int64) for own in side] for side in zip(*users, strict=True))
    return Profiles.of(positives, negatives)


def mf_scores(user, table, items, has, weights):
    return table[items] @ user


def gnn_scores(user, table, items, has, weights):
    h_user, h_items = user, [table[j] for j in items]
    for own, neighbour in (weights[:2], weights[2:]):
        around = [h for h, j in zip(h_items, items, strict=True) if j in has]
        mean = torch.stack(around).mean(dim=0) if around else torch.zeros_like(h_user)
        up = torch.relu(h_user @ own + mean @ neighbour)
        h_items = [
            torch.relu(h @ own + (h_user @ neighbour if j in has else 0))
            for h, j in zip(h_items, items, strict=True)
        ]
        h_user = up
    return torch.stack(h_items) @ h_user


@pytest.mark.parametrize(("model", "scores"), [(MF(4), mf_scores), (GNN(4, 6), gnn_scores)])
def test_gradients_are_those_of_the_loss(model, scores):
    arrays = [10 * a if i == 0 else a for i, a in enumerate(model.arrays(M, 1).values())]
    users = 10 * np.stack([model.user(1, i) for i in range(len(USERS))])
    batch = profiles()
    got = model.gradients(batch, users, arrays, REG)
    for i, (positive, negative) in enumerate(USERS):
        table, *weights = (torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in arrays)
        user = torch.tensor(users[i], dtype=torch.float64, requires_grad=True)
        distinct = sorted({*positive, *negative})
        loss = REG / 2 * (user.square().sum() + table[distinct].square().sum())
        if distinct:
            score = dict(zip(distinct, scores(user, table, distinct, set(positive), weights), strict=True))
            for p, n in zip(positive, negative, strict=True):
                loss = loss - F.logsigmoid(score[p] - score[n])
        loss.backward()
        mine = slice(batch.splits[i], batch.splits[i + 1])
        assert batch.items[mine].tolist() == distinct
        np.testing.assert_allclose(got.users[i], user.grad, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(got.rows[mine], table.grad[distinct], rtol=1e-4, atol=1e-6)
        dense = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
        flat = torch.cat([w.reshape(-1) for w in dense]) if dense else torch.zeros(0)
        np.testing.assert_allclose(got.dense[i], flat, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("model", [MF(4), GNN(4, 6)])
def test_a_user_alone_gets_the_same_bits(model):
    arrays, users = list(model.arrays(M, 1).values()), np.stack([model.user(1, i) for i in range(len(USERS))])
    batch = profiles()
    together = model.gradients(batch, users, arrays, REG)
    candidates = np.array([[4, 6]] * len(USERS))
    scores = model.scores(batch, users, arrays, candidates)
    for i, pairs in enumerate(USERS):
        alone = model.gradients(profiles([pairs]), users[i : i + 1], arrays, REG)
        mine = slice(batch.splits[i], batch.splits[i + 1])
        assert np.array_equal(alone.rows, together.rows[mine])
        assert np.array_equal(alone.users[0], together.users[i])
        assert np.array_equal(alone.dense[0], together.dense[i])
        assert alone.loss[0] == together.loss[i]
        assert np.array_equal(
            model.scores(profiles([pairs]), users[i : i + 1], arrays, candidates[:1])[0], scores[i]
        )


def test_blocks_cover_all_users_whatever_their_size():
    batch = profiles()
    for rows in (1, 3, 4, 100):
        bounds = batch.blocks(rows)
        assert bounds[0][0] == 0
        assert bounds[-1][1] == len(batch)
        assert all(a[1] == b[0] for a, b in pairwise(bounds))


@pytest.mark.parametrize("make", [MF, GNN])
def test_sizes_are_checked_and_seeds_matter(make):
    with pytest.raises(ValueError, match="must be positive"):
        make(dim=0)
    first, again, other = (make(4).arrays(M, seed)["items"] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(make(4).user(1, 0), make(4).user(1, 1))
