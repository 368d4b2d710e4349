"""Spattack and the attacks beside it, against their definitions."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from byzflower.attacks.items import (
    FedAttack,
    ItemCluster,
    ItemFang,
    ItemGaussian,
    ItemLIE,
    ItemView,
    ProfileFlip,
    SpattackLD,
    SpattackLS,
    SpattackOD,
    SpattackOS,
)

F, M, D = 4, 12, 3


def view(seed=0, max_items=5, memory=None, table=None, round=1):
    random = torch.Generator().manual_seed(seed)
    counts = torch.tensor([0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144])
    sums = torch.randn(M, D, generator=random) * (counts > 0)[:, None]
    std = torch.rand(M, D, generator=random) * (counts > 1)[:, None]
    return ItemView(
        num_byzantine=F,
        popularity=counts,
        max_items=max_items,
        table=torch.randn(M, D, generator=random) if table is None else table,
        benign=SimpleNamespace(counts=counts, sums=sums, std=std),
        dense=torch.randn(6, 2, generator=random),
        round=round,
        generator=random,
        memory={} if memory is None else memory,
    )


def uploaded(crafted):
    """(f, m, d) what each attacker sends, 0 where it sends nothing."""
    rows = crafted.rows.expand(F, M, D)
    return torch.where(crafted.chosen[:, :, None], rows, torch.zeros(()))


@pytest.mark.parametrize("attack", [SpattackOD(), SpattackOS()])
def test_omniscient_rows_cancel_the_benign_ones(attack):
    shown = view()
    crafted = attack.craft(shown)
    reached = crafted.chosen.any(dim=0)
    torch.testing.assert_close(uploaded(crafted).sum(dim=0)[reached], -shown.benign.sums[reached])
    torch.testing.assert_close(attack.craft_dense(shown) * F, -shown.dense.sum(dim=0))


@pytest.mark.parametrize("attack", [SpattackOD(), SpattackLD()])
def test_the_dense_attacks_reach_every_item(attack):
    assert attack.craft(view()).chosen.shape == (F, M)
    assert attack.craft(view()).chosen.all()


@pytest.mark.parametrize("attack", [SpattackOS(), SpattackLS()])
def test_the_sparse_attacks_upload_as_many_items_as_the_busiest_user_and_the_same_ever_after(attack):
    memory = {}
    chosen = attack.craft(view(memory=memory)).chosen
    assert (chosen.sum(dim=1) == 5).all()
    assert not chosen[:, 0].any()  # nobody has it
    assert torch.equal(attack.craft(view(seed=9, memory=memory, round=2)).chosen, chosen)
    everything = attack.craft(view(max_items=100)).chosen
    assert everything[:, 1:].all()
    assert not everything[:, 0].any()


@pytest.mark.parametrize("attack", [SpattackLD(), SpattackLS()])
def test_attacks_that_know_nothing_are_shown_nothing(attack):
    blind = dataclasses.replace(view(), benign=None, dense=torch.full((6, 2), torch.nan))
    assert attack.craft(blind).rows.isfinite().all()
    assert attack.craft_dense(blind).isfinite().all()


@pytest.mark.parametrize("kind", [SpattackOS, SpattackLS])
def test_the_sparse_attacks_poison_as_many_items_as_they_are_told(kind):
    assert (kind(max_items=3).craft(view()).chosen.sum(dim=1) == 3).all()
    with pytest.raises(ValueError, match="max_items must not be negative, got -1"):
        kind(max_items=-1)


def test_popular_items_are_drawn_more_often():
    drawn = sum(SpattackOS().craft(view(seed=s, max_items=2)).chosen.sum(dim=0) for s in range(50))
    assert drawn[9:].sum() > 4 * drawn[:6].sum()


def test_noise_is_the_same_in_all_rounds_and_the_sparse_attack_shares_it():
    dense, sparse = SpattackLD().craft(view()), SpattackLS().craft(view(seed=5, round=7))
    assert torch.equal(dense.rows, sparse.rows)
    assert not torch.equal(dense.rows, SpattackLD(noise_seed=1).craft(view()).rows)
    wide = SpattackLD(std=3.0).craft(view())
    torch.testing.assert_close(wide.rows, 3 * dense.rows)
    with pytest.raises(ValueError, match="std must be positive, got 0"):
        SpattackLD(std=0)


def test_statistics_of_the_benign_rows():
    shown = view()
    benign = shown.benign
    mean = benign.sums / benign.counts.clamp(min=1)[:, None]
    means = torch.where(benign.counts[:, None] > 0, mean, torch.zeros(()))
    touched = (benign.counts > 0).expand(F, M)
    lie = ItemLIE(z=0.5).craft(shown)
    torch.testing.assert_close(lie.rows, means + 0.5 * benign.std)
    fang = ItemFang().craft(shown)
    ratio = (fang.rows / means)[1:]
    assert (ratio <= -3 + 1e-4).all()
    assert (ratio >= -4 - 1e-4).all()
    for crafted in (lie, fang, ItemGaussian().craft(shown)):
        assert torch.equal(crafted.chosen, touched)
    gaussian = ItemGaussian().craft(shown).rows
    assert gaussian.shape == (F, M, D)
    torch.testing.assert_close(gaussian[:, 1], means[1].expand(F, D))  # one benign row: no deviation
    assert not torch.equal(gaussian[0, 5], gaussian[1, 5])


def test_cluster_steps_bring_items_together():
    table, memory = view().table, {}
    before = table.var(dim=0).sum()
    for server_round in range(1, 30):
        shown = view(table=table, memory=memory, round=server_round)
        table = table - 0.5 * ItemCluster().craft(shown).rows
        assert 1 <= int(memory["clusters"]) <= 10
    assert table[1:].var(dim=0).sum() < 0.5 * before


def test_profiles():
    positives, negatives = np.array([1, 2, 3]), np.array([7, 7, 9])
    table = torch.arange(10.0)[:, None].repeat(1, 2)
    user = torch.ones(2)
    assert [a.tolist() for a in ProfileFlip().poison(positives, negatives, user, table)] == [
        [7, 7, 9],
        [1, 2, 3],
    ]
    unlike, like = FedAttack().poison(positives, negatives, user, table)
    assert (unlike.tolist(), like.tolist()) == ([0, 1, 2], [9, 8, 7])
