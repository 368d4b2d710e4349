"""Item uploads: what was sent comes back, and nothing else is let in."""

import dataclasses

import numpy as np
import pytest

from byzflower.strategies.items import ItemMean
from byzflower.uploads.base import Rejected
from byzflower.uploads.items import Items, ItemUpload, join
from byzflower.uploads.layout import Layout

M, D = 6, 3
LAYOUT = Layout.of({"items": np.zeros((M, D), np.float32)})
DEEP = Layout.of({"items": np.zeros((M, D), np.float32), "w": np.zeros((2, 2), np.float32)})


def upload(width=0):
    items = np.array([0, 2, 5, 1, 2], np.int32)
    rows = np.arange(5 * D, dtype=np.float32).reshape(5, D)
    dense = np.arange(3 * width, dtype=np.float32).reshape(3, width)
    return ItemUpload([4, 7, 9], np.ones(3), [{}] * 3, np.array([0, 3, 3, 5]), items, rows, dense)


def rebuilt(arrays, layout=LAYOUT, ids=(4, 7, 9), cohort=True):
    return Items().decode(arrays, layout, list(ids), np.ones(len(ids)), [{}] * len(ids), cohort=cohort)


def same(a, b):
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(ItemUpload))


@pytest.mark.parametrize(("layout", "width"), [(LAYOUT, 0), (DEEP, 4)])
def test_cohorts_and_single_clients_come_back(layout, width):
    sent = upload(width)
    assert same(rebuilt(sent.payload(layout, cohort=True), layout), sent)
    for i, client in enumerate(sent.client_ids):
        one = sent.take([i])
        arrays = list(one.payload(layout, cohort=False).values())
        named = {str(k): a for k, a in enumerate(arrays)}  # as a NumPyClient's list is named
        assert same(rebuilt(named, layout, [client], cohort=False), one)
    assert sent.client_bytes(layout) == [3 * 16 + 4 * width, 4 * width, 2 * 16 + 4 * width]


def test_parts_join_to_the_whole():
    whole = upload(4)
    assert same(join([whole.take([0]), whole.take([1, 2])]), whole)
    assert join([whole]) is whole
    assert whole.take([2, 0]).items.tolist() == [1, 2, 0, 2, 5]


HOSTILE = {
    "no arrays": (lambda a: {}, "0 arrays where splits, items, rows are expected"),
    "another name": (lambda a: {"x" + k: v for k, v in a.items()}, "3 arrays where"),
    "splits too short": (lambda a: {**a, "splits": a["splits"][:-1]}, "splits has shape"),
    "splits of floats": (lambda a: {**a, "splits": a["splits"] * 1.0}, "splits has dtype float64"),
    "splits go back": (lambda a: {**a, "splits": np.array([0, 4, 3, 5])}, "without going back"),
    "splits beyond": (lambda a: {**a, "splits": np.array([0, 3, 3, 6])}, "without going back"),
    "splits below": (lambda a: {**a, "splits": np.array([-1, 3, 3, 5])}, "without going back"),
    "items of int64": (lambda a: {**a, "items": a["items"].astype(np.int64)}, "items has dtype int64"),
    "item too large": (lambda a: {**a, "items": np.array([0, 2, 6, 1, 2], np.int32)}, "expected 0 to 5"),
    "item negative": (lambda a: {**a, "items": np.array([-1, 2, 5, 1, 2], np.int32)}, "expected 0 to 5"),
    "item twice": (lambda a: {**a, "items": np.array([0, 2, 2, 1, 2], np.int32)}, "strictly ascending"),
    "items unordered": (lambda a: {**a, "items": np.array([2, 0, 5, 1, 2], np.int32)}, "strictly ascending"),
    "items in a matrix": (lambda a: {**a, "items": a["items"][None]}, "items has shape"),
    "rows too few": (lambda a: {**a, "rows": a["rows"][1:]}, "rows has shape"),
    "rows too narrow": (lambda a: {**a, "rows": a["rows"][:, 1:]}, "rows has shape"),
    "rows of float64": (lambda a: {**a, "rows": a["rows"] * np.float64(1)}, "rows has dtype float64"),
    "dense for nothing": (lambda a: {**a, "dense": np.zeros((3, 4), np.float32)}, "4 arrays where"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_malformed_uploads_are_refused_with_a_reason(case):
    change, reason = HOSTILE[case]
    with pytest.raises(Rejected, match=reason):
        rebuilt(change(upload().payload(LAYOUT, cohort=True)))


def test_a_single_clients_scalar_items_are_refused():
    with pytest.raises(Rejected):
        rebuilt(
            {"0": np.int32(3) * np.ones((), np.int32), "1": np.zeros((1, D), np.float32)},
            ids=[1],
            cohort=False,
        )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_clients_with_rows_that_are_not_finite_are_quarantined_alone(bad):
    strategy = ItemMean(server_lr=1.0)
    strategy.set_global(1, {"items": np.zeros((M, D), np.float32)})
    sent = upload()
    sent.rows[4, 1] = bad
    row = strategy.aggregate_uploads([sent])
    assert [tuple(r) for r in strategy.last_round.rejections] == [(9, "NaN or Inf in the upload")]
    assert strategy.last_round.clients == [4, 7]
    table = row.reshape(M, D)
    assert np.array_equal(table[[0, 2, 5]], -sent.rows[:3])
    assert not table[[1, 3, 4]].any()  # nobody that counts touched them


def test_a_round_without_rows_is_skipped():
    strategy = ItemMean()
    strategy.set_global(1, {"items": np.zeros((M, D), np.float32)})
    assert strategy.aggregate_uploads([upload().take([1])]) is None
    assert strategy.last_round.skipped == "no usable upload arrived"
    assert strategy.aggregate_uploads([]) is None


def test_adam_leaves_untouched_items_alone_and_steps_by_the_sign_first():
    strategy = ItemMean(server_lr=0.5, server_optimizer="adam")
    strategy.set_global(1, {"items": np.zeros((M, D), np.float32)})
    sent = upload()
    sent.rows[:] = np.where(sent.rows % 2 == 0, 3.0, -2.0)
    table = strategy.aggregate_uploads([sent]).reshape(M, D)
    np.testing.assert_allclose(table[0], -0.5 * np.sign(sent.rows[0]), rtol=1e-5)
    assert not table[[3, 4]].any()
    twin = ItemMean(server_lr=0.5, server_optimizer="adam")
    twin.load_state_dict(strategy.state_dict())
    for own in (strategy, twin):
        own.set_global(2, {"items": table})
    assert np.array_equal(strategy.aggregate_uploads([sent]), twin.aggregate_uploads([sent]))
