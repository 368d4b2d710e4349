"""The adversary on sparse uploads, attacks on masks, and what is recorded of them."""

import numpy as np
import pytest
import torch

from byzflower.attacks import (
    ALIE,
    ATTACKS,
    IPM,
    CollusiveAttack,
    IndexPoisoning,
    MaskMimic,
    PackView,
    Scaling,
    TensorColumns,
    head_packs,
    mean_sign_cosine,
    rarest_first,
    scale_parameters,
    spread_signs,
)
from byzflower.attacks.index_poisoning import parse_packs
from byzflower.experiments.report.plots import plot_similarity
from byzflower.server import Adversary
from byzflower.server.adversary.diagnostics import contributor_shares, poisoning, vulnerability
from byzflower.server.config.classification import RunConfig
from byzflower.server.engines.simulation import simulate
from byzflower.strategies import FedAvg, Median, PackedRows, SafeSparse
from byzflower.uploads import Layout, Packs, TopK, TopKUpload, encode_upload
from byzflower.uploads.topk import sparsify
from flower import begin_round, reply_from

MODEL = {"w": np.zeros((4, 5), np.float32), "v": np.zeros((2, 4), np.float32), "b": np.ones(2, np.float32)}
LAYOUT = Layout.of(MODEL)
PACKS = Packs(LAYOUT.d, 3)
ROW = LAYOUT.row(list(MODEL.values()))
TENSORS = tuple(TensorColumns(*tensor) for tensor in LAYOUT.parameters)


def updates(seed=0, n=6):
    return np.random.default_rng(seed).normal(size=(n, LAYOUT.d)).astype(np.float32)


def replies(rows, half=False, cohort=False):
    models = [sparsify(ROW - g, ROW, LAYOUT, TopK(0.5, half=half, pack_size=3)) for g in rows]
    uploads = [
        TopKUpload.of_models([i], np.ones(1), [{}], PACKS, [model], LAYOUT) for i, model in enumerate(models)
    ]
    if cohort:
        ids, ones = list(range(len(rows))), np.ones(len(rows))
        whole = TopKUpload.of_models(ids, ones, [{}] * len(rows), PACKS, models, LAYOUT)
        return [reply_from(9, encode_upload(whole, LAYOUT, cohort=True))], models
    return [reply_from(10 + i, encode_upload(u, LAYOUT, cohort=False)) for i, u in enumerate(uploads)], models


class Watched(FedAvg):
    """Keeps the rows that reach the rule."""

    def aggregate_contributors(self, gradients, weights):
        self.seen = gradients
        return super().aggregate_contributors(gradients, weights)


def round_of(attack, masks=None, half=False, cohort=False, rows=None):
    rows = updates() if rows is None else rows
    options = {"num_clients": len(rows)} if cohort else {"min_available_nodes": 1, "min_train_nodes": 1}
    strategy = Watched(upload="topk", pack_size=3, densify="contributors", fraction_evaluate=0.0, **options)
    adversary = Adversary(strategy, attack, num_byzantine=2, mask_attack=masks, diagnostics=True)
    begin_round(adversary, MODEL, [9] if cohort else [10 + i for i in range(len(rows))])
    messages, models = replies(rows, half, cohort)
    adversary.aggregate_train(1, messages)
    return adversary, strategy.seen, models


@pytest.mark.parametrize("cohort", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_attackers_upload_the_most_important_packs_of_what_they_craft(half, cohort):
    _, seen, models = round_of(IPM(eps=2), half=half, cohort=cohort)
    x = seen.matrix()
    sent = np.stack([m.mask for m in models])
    np.testing.assert_array_equal(seen.masks[2:], sent[2:])
    crafted = -2 * x[2:].double().mean(dim=0)
    best = PACKS.largest(PACKS.importance(crafted.numpy()), PACKS.quota(0.5))
    np.testing.assert_array_equal(seen.masks[:2], [best, best])
    expected = np.where(PACKS.columns(best), crafted.numpy(), 0)
    np.testing.assert_allclose(x[0], expected, rtol=2e-3 if half else 1e-5, atol=1e-3 if half else 1e-6)


@pytest.mark.parametrize("name", sorted(n for n, a in ATTACKS.items() if issubclass(a, CollusiveAttack)))
def test_every_collusive_attack_works_on_sparse_uploads(name):
    adversary, seen, _ = round_of(ATTACKS[name]())
    if not np.isfinite(seen.matrix()).all() or len(seen.masks) < 6:
        assert name in ("nan", "inf")
        return
    assert seen.masks.sum(axis=1).tolist() == [PACKS.quota(0.5)] * 6
    assert adversary.info["rho"] >= 0


def test_index_poisoning_puts_all_attackers_on_the_rarest_packs():
    adversary, seen, models = round_of(IPM(eps=2), IndexPoisoning())
    benign = np.stack([m.mask for m in models[2:]])
    rarest = sorted(range(PACKS.count), key=lambda p: (benign[:, p].sum(), p))[: PACKS.quota(0.5)]
    for mask in seen.masks[:2]:
        assert np.flatnonzero(mask).tolist() == sorted(rarest)
    record = vulnerability(seen.masks, np.arange(6) < 2, np.ones(6, bool))
    assert record["max"] >= 1 / 3
    assert adversary.similarity.jaccard[0, 1] == 1


def test_without_an_attack_on_values_attackers_place_their_own():
    rows = updates(3)
    _, seen, _ = round_of(None, IndexPoisoning(target="0-1", share=0.4), rows=rows)
    assert seen.masks[:2, :2].all()
    assert seen.masks.sum(axis=1).tolist() == [PACKS.quota(0.5)] * 6


def pack_view(masks, benign=None, budget=2):
    masks = torch.tensor(masks, dtype=torch.bool)
    benign = torch.zeros(len(masks), LAYOUT.d) if benign is None else benign
    return PackView(benign, masks, 3, budget, TENSORS, torch.Generator().manual_seed(0))


def test_targets():
    masks = [[1, 0, 0, 1, 0, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, 0, 1, 0, 1, 0]]
    crafted = torch.zeros(3, LAYOUT.d)
    assert rarest_first(torch.tensor(masks)).tolist() == [1, 2, 4, 5, 7, 9, 3, 6, 0, 8]
    # w has columns 0-19; v, 20-27, is the last matrix and b, 28-29, follows it.
    assert head_packs(TENSORS, 3).tolist() == [6, 7, 8, 9]
    assert parse_packs("0-2+7").tolist() == [0, 1, 2, 7]

    def chosen(budget=4, **options):
        _, mask = IndexPoisoning(**options).place(crafted, pack_view(masks, budget=budget))
        assert mask.shape == (3, 10)
        assert (mask == mask[0]).all()
        return mask[0].nonzero().squeeze(1).tolist()

    assert chosen() == [1, 2, 4, 5]
    assert chosen(share=0.5) == [0, 1, 2, 8]
    assert chosen(target="head") == [6, 7, 8, 9]
    assert chosen(target="3+99") == [0, 3, 6, 8]
    for options, message in (({"share": 0}, "share must be in"), ({"target": "2-1"}, "target must be rare")):
        with pytest.raises(ValueError, match=message):
            IndexPoisoning(**options)
    with pytest.raises(ValueError, match="no head"):
        head_packs([TensorColumns("b", (3,), slice(0, 3))], 3)


def test_mimics_have_different_honest_masks_and_signs_no_more_alike_than_honest_ones():
    rng = np.random.default_rng(0)
    common = rng.normal(size=3000)
    benign = torch.from_numpy(common + rng.normal(size=(6, 3000)))
    masks = torch.from_numpy(rng.random((6, 1000)) < 0.5)
    view = PackView(benign, masks, 3, 500, (), torch.Generator().manual_seed(1))
    forged, copied = MaskMimic().place(torch.ones(4, 3000), view)
    assert len({tuple(mask.tolist()) for mask in copied}) == 4
    assert all(any(torch.equal(mask, own) for own in masks) for mask in copied)
    assert mean_sign_cosine(forged) == pytest.approx(mean_sign_cosine(benign), abs=0.05)
    assert torch.equal(forged.abs(), torch.ones(4, 3000))
    same, _ = MaskMimic(flip=0.0).place(torch.ones(4, 3000), view)
    assert torch.equal(same, torch.ones(4, 3000))
    with pytest.raises(ValueError, match=r"flip must be in \[0, 0.5\], got 0.6"):
        MaskMimic(flip=0.6)
    assert mean_sign_cosine(benign[:1]) == 0
    assert torch.equal(spread_signs(benign, 0.0, torch.Generator()), benign)


def test_scaling_of_updates_and_of_parameters():
    g, w = torch.tensor([1.0, -2.0]), torch.tensor([3.0, 5.0])
    # The local model is (2, 7), ten times that (20, 70), which is 17 and 65 away from the global one.
    assert scale_parameters(g, w, 10).tolist() == [-17, -65]
    assert Scaling(factor=-10).factor == -10
    with pytest.raises(ValueError, match="scope must be update or parameters, got 'all'"):
        Scaling(scope="all")


def test_a_mask_attack_needs_sparse_uploads():
    with pytest.raises(ValueError, match='mask_attack needs a strategy with upload="topk"'):
        Adversary(Median(), ALIE(), num_byzantine=1, mask_attack=MaskMimic())


def test_outside_of_its_window_everybody_is_honest():
    _, seen, models = round_of(IPM(eps=2, start_round=2), IndexPoisoning(start_round=2))
    np.testing.assert_array_equal(seen.masks, [m.mask for m in models])


def test_contributor_shares_and_theorem_1_by_hand():
    masks = np.array([[1, 1, 0, 0], [1, 0, 0, 1], [1, 0, 1, 0]], bool)
    byzantine = np.array([True, False, False])
    assert contributor_shares(masks, byzantine).tolist() == pytest.approx([1 / 3, 1, 0, 0])
    record = vulnerability(masks, byzantine, ~byzantine)
    assert record == pytest.approx(
        {"max": 1, "mean": 1 / 3, "above-half": 0.25, "squares": 1 + 1 / 9, "squares-after": 0}
    )
    rows = PackedRows.of_matrix(
        torch.tensor([[4.0, 3, 0, 0], [1, 0, 0, 2], [1, 0, 6, 0]]), torch.from_numpy(masks), 1
    )
    # Benign model: (1, 0, 6, 2); the mean of all is (2, 3, 6, 2).
    numbers = poisoning(rows, torch.ones(3), byzantine, torch.tensor([2.0, 3, 6, 2]))
    assert numbers == pytest.approx({"rho": 1 + 9, "eps": 3, "bound": 9 * (1 + 1 / 9)})
    assert numbers["rho"] <= numbers["bound"]


@pytest.mark.parametrize("masks", ["none", "indexpoisoning", "maskmimic"])
@pytest.mark.parametrize("attack", ["labelflip", "ipm"])
def test_whole_runs_record_what_happened_to_whom(attack, masks, tmp_path):
    small = {"clients": 10, "byzantine": 4, "rounds": 3, "batches": 2, "model": "mlp", "engine": "inline"}
    options = {"attack_options": "start_round=2", "mask_attack": masks, "upload": "topk", "diagnostics": True}
    if masks != "none":
        options["mask_attack_options"] = "start_round=2"
    config = RunConfig.make(
        {**small, **options, "attack": attack, "strategy": "safesparse", "out": str(tmp_path)}
    )
    outcome = simulate(config)
    first, _, last = outcome.result["history"][1:]
    assert "contributors" not in first
    assert last["contributors"].keys() == {"max", "mean", "above-half", "squares", "squares-after"}
    assert {entry["client"] for entry in last["dropped"]} == set(range(10)) - set(last["selected"])
    assert all(entry["reason"].startswith(("mask: ", "signs: ")) for entry in last["dropped"])
    assert last["diagnostics"]["rho"] >= 0
    assert last["bytes_up"] < 0.52 * last["bytes_down"]
    folder = outcome.recorder.folder
    assert plot_similarity(folder, config.byzantine_ids()) == folder / "similarity.png"
    assert (folder / "similarity.png").stat().st_size > 1000
    table = np.genfromtxt(folder / "jaccard.csv", delimiter=",", skip_header=1)
    assert table.shape == (10, 11)
    assert (np.diag(table[:, 1:]) == 1).all()


def test_safesparse_rules_run_from_the_configuration():
    strategy = RunConfig.make({"strategy": "safesparse", "upload": "topk", "pack_size": 8}).make_strategy()
    assert isinstance(strategy, SafeSparse)
    assert strategy.pack_size == 8
