"""Finite uploads at the ends of their dtypes' ranges: whoever sends them is named, and the round goes on."""

import math

import numpy as np
import pytest
import torch

from byzflower.strategies import FedAvg, Krum, Median, MultiKrum, SafeSparse
from byzflower.strategies.items import ITEM_STRATEGIES, ItemCenteredClipping, ItemMean
from byzflower.uploads.base import among
from byzflower.uploads.codec import encode_upload
from byzflower.uploads.dense import DenseUpload, Gradients, Weights
from byzflower.uploads.items import ItemUpload
from byzflower.uploads.layout import Layout
from byzflower.uploads.limits import MAX_NORM, row_norms
from byzflower.uploads.round import Broadcast
from byzflower.uploads.topk import Packs, SparseModel, TopK, TopKUpload
from flower import begin_round, plain_reply, reply_from

LARGE = {np.float32: 3e38, np.float64: 1e200}


def dense(rows, layout):
    ones = np.ones(len(rows))
    return DenseUpload(list(range(len(rows))), ones, [{}] * len(rows), np.asarray(rows, layout.row_dtype))


@pytest.mark.parametrize("dtype", LARGE)
@pytest.mark.parametrize("upload", ["weights", "gradient"])
@pytest.mark.parametrize("make", [FedAvg, Median, lambda **o: Krum(1, **o), lambda **o: MultiKrum(1, **o)])
def test_a_row_whose_square_overflows_is_quarantined_by_name(make, upload, dtype):
    strategy = make(upload=upload)
    begin_round(strategy, {"w": np.zeros(4, dtype)}, range(1, 8))
    rows = np.random.default_rng(0).normal(size=(7, 4)) * 1e-3
    rows[2] = LARGE[dtype]
    new = strategy.aggregate_uploads([dense(rows, Layout.of({"w": np.zeros(4, dtype)}))])
    ((client, reason),) = strategy.last_round.rejections
    assert (client, strategy.last_round.clients) == (2, [0, 1, 3, 4, 5, 6])
    assert reason.startswith("so large that its norm is above 1.84e+19")
    assert np.abs(new).max() < 1


@pytest.mark.parametrize("dtype", LARGE)
def test_the_longest_row_passes_and_the_next_does_not(dtype):
    layout = Layout.of({"w": np.zeros(9, dtype)})
    direction = np.full(9, 1 / 3)
    rows = [direction * MAX_NORM * scale for scale in (0.999, 1.001, -0.999, -1.001)]
    sent = Broadcast(layout, np.zeros(9, dtype))
    for kind in (Gradients(), Weights()):
        assert kind.rows([dense(rows, layout)], sent, 1.0).client_ids == [0, 2]


def test_norms_are_those_of_the_rows_however_many_there_are():
    for n, d in ((1, 3), (700, 1000), (3, 300_000), (0, 5), (4, 0)):
        rows = torch.randn(n, d)
        torch.testing.assert_close(row_norms(rows), torch.linalg.vector_norm(rows, dim=1), rtol=1e-4, atol=0)


HALF = {"w": np.full(4, 0.5, np.float16), "steps": np.array(7, np.int64)}


@pytest.mark.parametrize("upload", ["weights", "gradient"])
@pytest.mark.parametrize(("column", "lie"), [(0, 1e6), (1, -7e4), (4, 1e19)])
def test_values_that_the_models_dtypes_cannot_hold_are_their_senders_fault(upload, column, lie):
    strategy = FedAvg(num_clients=5, upload=upload)
    begin_round(strategy, HALF, [1])
    layout = Layout.of(HALF)
    rows = np.tile(layout.row(list(HALF.values())), (5, 1)) if upload == "weights" else np.zeros((5, 5))
    rows[3, column] = lie
    content = encode_upload(dense(rows, layout), layout, cohort=True)
    arrays, _ = strategy.aggregate_train(1, [reply_from(1, content)])
    ((client, reason),) = strategy.last_round.rejections
    assert client == 3
    assert reason.startswith("values of array '") or reason.startswith("so large")
    for name, array in HALF.items():
        np.testing.assert_array_equal(arrays[name].numpy(), array)


def test_integers_round_into_their_range():
    model = {"w": np.zeros(2, np.float32), "seen": np.array([3, 4], np.uint8)}
    strategy = FedAvg(num_clients=3)
    begin_round(strategy, model, [1])
    rows = np.array([[0, 0, 255, 4], [0, 0, 0, 4], [0, 0, 0, -1]])
    layout = Layout.of(model)
    strategy.aggregate_train(1, [reply_from(1, encode_upload(dense(rows, layout), layout, cohort=True))])
    assert strategy.last_round.rejections == [(2, "values of array 'seen' that uint8 cannot hold")]


# -- packs ---------------------------------------------------------------------------------------------------

SIZE = 4
START = {"w": np.full(8, 0.5, np.float32)}


def sparse(values, packs):
    masks = np.zeros((len(values), 2), bool)
    for mask, own in zip(masks, packs, strict=True):
        mask[own] = True
    models = [
        SparseModel(mask, np.full(SIZE * int(mask.sum()), v, np.float32), np.empty(0, np.float32))
        for mask, v in zip(masks, values, strict=True)
    ]
    ids, sizes = list(range(len(values))), np.ones(len(values))
    layout = Layout.of(START)
    return TopKUpload.of_models(ids, sizes, [{}] * len(values), Packs(8, SIZE), models, layout)


CONTRIBUTORS = {
    "median": lambda: Median(upload="topk", pack_size=SIZE, densify="contributors"),
    "fedavg": lambda: FedAvg(upload="topk", pack_size=SIZE, densify="contributors"),
    "safesparse": lambda: SafeSparse(beta=0, guard=False, magnitude_guard=None, pack_size=SIZE),
}


@pytest.mark.parametrize("make", CONTRIBUTORS.values(), ids=CONTRIBUTORS)
@pytest.mark.parametrize("lie", [1e18, 1e3])
def test_a_pack_of_ones_own_does_not_cost_the_others_the_next_round(make, lie):
    strategy = make()
    model = {"w": START["w"].copy()}
    benign = [0.4, 0.42, 0.45, 0.47, 0.41, 0.43]
    for server_round in (1, 2, 3):
        begin_round(strategy, model, [1, 2], server_round)
        upload = sparse([*benign, lie], [[0]] * 6 + [[1]])
        new = strategy.aggregate_uploads([upload])
        assert strategy.last_round.clients == list(range(7))
        assert strategy.last_round.skipped is None
        model = {"w": new}
        if lie > 1e9:
            np.testing.assert_array_equal(new[4:], 0.5)  # nobody else's business, but not to be ruined
            named = [reason for client, reason in strategy.last_round.dropped if client == 6]
            assert "would move coordinate" in named[0] or "cluster" in named[0]
    assert np.abs(new[:4] - 0.5).max() < 0.11


def test_the_limit_of_a_pack_is_not_set_by_what_the_model_is_elsewhere():
    start = np.full(8, 0.5, np.float32)
    start[:4] = np.finfo(np.float32).max  # however it came there
    stacked = TopK(pack_size=SIZE).rows(
        [sparse([0.4, 0.5, 0.6], [[1]] * 3)], Broadcast(Layout.of(START), start), 1.0
    )
    assert stacked.client_ids == [0, 1, 2]


def test_sparse_rows_whose_square_overflows_are_quarantined():
    upload = sparse([0.4, 1.5e19, math.nan], [[0], [0, 1], [1]])
    stacked = TopK(pack_size=SIZE).rows([upload], Broadcast.of(START), 1.0)
    assert stacked.client_ids == [0]
    assert [client for client, _ in stacked.rejections] == [1, 2]
    assert stacked.rejections[0].reason.startswith("so large")
    assert stacked.rejections[1].reason == "NaN or Inf in the upload"


# -- items ---------------------------------------------------------------------------------------------------

M, W = 6, 3
ITEMS = {"items": np.full((M, W), 0.1, np.float32), "top": np.zeros(2, np.float32)}


def touched(rows_of_clients, ids, dense_part=0.0):
    """An upload of clients that each touch the given items with rows of one value."""
    splits = np.concatenate([[0], np.cumsum([len(own) for own in rows_of_clients])]).astype(np.int64)
    items = np.array([item for own in rows_of_clients for item in sorted(own)], np.int32)
    rows = np.array([[own[item]] * W for own in rows_of_clients for item in sorted(own)], np.float32)
    k = len(ids)
    dense_rows = np.full((k, 2), dense_part, np.float32)
    return ItemUpload(list(ids), np.ones(k), [{}] * k, splits, items, rows.reshape(-1, W), dense_rows)


def item_round(strategy, model, upload, server_round=1):
    begin_round(strategy, model, [1, 2], server_round)
    return strategy.aggregate_uploads([upload])


BENIGN = [{0: 0.01, 1: 0.02}, {0: 0.02, 1: 0.01}, {0: 0.015, 2: 0.01}, {0: 0.01, 2: 0.03}]


@pytest.mark.parametrize("name", ITEM_STRATEGIES)
def test_ids_are_flowers_node_ids_up_to_two_to_the_64(name):
    ids = [2**64 - 1, 5, 2**63, 2**63 + 1]
    strategy = ITEM_STRATEGIES[name]()
    new = item_round(strategy, ITEMS, touched(BENIGN, ids))
    assert strategy.last_round.clients == sorted(ids)
    small = item_round(ITEM_STRATEGIES[name](), ITEMS, touched(BENIGN, [4, 1, 2, 3]))
    np.testing.assert_array_equal(new, small)


def test_ids_are_told_apart_to_the_last_bit():
    assert among([1, 2**63 + 1, 2**63], {2**63}).tolist() == [False, False, True]
    assert among([], [1]).tolist() == []


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", ITEM_STRATEGIES)
@pytest.mark.parametrize("lie", [1e19, 1e6])
def test_an_item_that_only_a_liar_touched_stays_and_the_liar_is_named(name, lie, optimizer):
    strategy, model = ITEM_STRATEGIES[name](server_optimizer=optimizer), ITEMS
    for server_round in (1, 2, 3):
        upload = touched([*BENIGN, {5: lie}], [10, 11, 12, 13, 99])
        new = item_round(strategy, model, upload, server_round)
        assert strategy.last_round.clients == [10, 11, 12, 13, 99]
        assert strategy.last_round.rejections == []
        table = new[: M * W].reshape(M, W)
        if name not in ("norm", "centeredclipping"):  # they have already shortened the row
            np.testing.assert_array_equal(table[5], ITEMS["items"][5])
            ((client, reason),) = strategy.last_round.dropped
            assert client == 99
            assert reason.startswith("would move item 5 by ")
        assert np.abs(table).max() < 1000 * 0.06
        model = {"items": table, "top": new[M * W :]}


@pytest.mark.parametrize("name", ITEM_STRATEGIES)
def test_without_liars_nothing_is_held_back(name):
    strategy = ITEM_STRATEGIES[name]()
    item_round(strategy, ITEMS, touched(BENIGN, [1, 2, 3, 4]))
    assert strategy.last_round.dropped == []


@pytest.mark.parametrize(("lie", "reason"), [(3e38, "so large"), (math.nan, "NaN or Inf")])
@pytest.mark.parametrize("dense_part", [True, False])
def test_item_uploads_that_nothing_can_be_made_of_are_quarantined(lie, reason, dense_part):
    upload = touched([*BENIGN, {}, {5: 0.01 if dense_part else lie}], [1, 2, 3, 4, 5, 6])
    if dense_part:
        upload.dense[5] = lie
    strategy = ItemMean()
    new = item_round(strategy, ITEMS, upload)
    ((client, said),) = strategy.last_round.rejections
    assert client == 6
    assert said.startswith(reason)
    alone = item_round(ItemMean(), ITEMS, upload.take([0, 1, 2, 3, 4]))
    np.testing.assert_array_equal(new, alone)


def test_a_refused_aggregate_is_not_what_later_rows_are_clipped_about():
    strategy = ItemCenteredClipping(tau=1e9)
    item_round(strategy, ITEMS, touched([*BENIGN, {5: 1e8}], [1, 2, 3, 4, 5]))
    assert strategy.previous[5].abs().max() == 0
    assert strategy.previous[0].abs().max() > 0


def test_one_hostile_user_changes_no_item_that_three_others_touched():
    users = [{item: 0.01 * (1 + (user + item) % 3) for item in range(M)} for user in range(9)]
    clean = item_round(ITEM_STRATEGIES["rfa"](), ITEMS, touched(users, range(9)))
    for lie in (1e18, 1.0):
        spoilt = touched([*users, dict.fromkeys(range(M), lie)], range(10))
        new = item_round(ITEM_STRATEGIES["rfa"](), ITEMS, spoilt)
        np.testing.assert_allclose(new[: M * W], clean[: M * W], atol=0.01)


def test_an_ordinary_client_alone_on_its_node_is_held_to_the_same():
    strategy = ItemMean()
    begin_round(strategy, ITEMS, range(1, 6))
    replies = []
    for node, own in enumerate([*BENIGN, {5: 1e18}], 1):
        one = touched([own], [node])
        arrays = {str(i): a for i, a in enumerate(one.payload(Layout.of(ITEMS), cohort=False).values())}
        replies.append(plain_reply(node, arrays))
    arrays, _ = strategy.aggregate_train(1, replies)
    np.testing.assert_array_equal(arrays["items"].numpy()[5], ITEMS["items"][5])
    assert [client for client, _ in strategy.last_round.dropped] == [5]
