"""Top-k uploads: what is kept, the round trip, sizes on the wire, and hostile ones."""

import math
import re

import numpy as np
import pytest
from flwr.common import RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from byzflower.flower.compat import array_record, wire_bytes
from byzflower.models import build_model
from byzflower.strategies import FedAvg, SafeSparse
from byzflower.uploads import Layout, Packs, SparseModel, TopK, TopKUpload, encode_upload
from byzflower.uploads.codec import decode_reply
from byzflower.uploads.topk import sparsify
from flower import begin_round, plain_reply, reply_from

pytestmark = pytest.mark.compat

MODEL = {
    "w": np.zeros((3, 5), np.float32),
    "n.running_mean": np.zeros(2, np.float32),
    "n.num_batches_tracked": np.zeros((), np.int64),
    "b": np.ones(4, np.float32),
}
LAYOUT = Layout.of(MODEL)
PACK = 4  # 19 scalars: packs of 4, 4, 4, 4, 3


def sparse(seed, ratio=0.5, dtype=np.float32):
    rng = np.random.default_rng(seed)
    sent = LAYOUT.row(list(MODEL.values()))
    trained = sent + rng.normal(size=LAYOUT.width).astype(np.float32)
    return sparsify(trained, sent, LAYOUT, TopK(ratio, half=dtype == np.float16, pack_size=PACK))


def upload_of(*models):
    packs = Packs(LAYOUT.d, PACK)
    count = len(models)
    sizes, metrics = np.arange(1.0, count + 1), [{"loss": 0.5}] * count
    return TopKUpload.of_models(list(range(count)), sizes, metrics, packs, models, LAYOUT)


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 70), st.floats(0.001, 1), st.integers(0, 100))
def test_the_most_important_packs_are_kept_of_equal_ones_the_first(d, size, ratio, seed):
    values = np.random.default_rng(seed).integers(-3, 4, d).astype(np.float32)
    packs = Packs(d, size)
    norms = [sum(abs(float(v)) for v in values[i : i + size]) for i in range(0, d, size)]
    count = min(len(norms), math.ceil(ratio * len(norms) - 1e-9))
    best = sorted(range(len(norms)), key=lambda p: (-norms[p], p))[:count]
    mask = packs.largest(packs.importance(values), packs.quota(ratio))
    assert np.flatnonzero(mask).tolist() == sorted(best)
    kept = [v for i in range(0, d, size) if i // size in best for v in values[i : i + size]]
    assert values[packs.columns(mask)].tolist() == kept
    assert packs.scalars(mask) == len(kept)


def test_packs_have_a_size():
    with pytest.raises(ValueError, match="pack_size must be at least 1, got 0"):
        Packs(3, 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("cohort", [False, True])
def test_round_trip_is_exact(cohort, dtype):
    upload = upload_of(*(sparse(seed, 0.2 * (seed + 1), dtype) for seed in range(3 if cohort else 1)))
    message = reply_from(7, encode_upload(upload, LAYOUT, cohort=cohort))
    back, faults = decode_reply(message, TopK(pack_size=PACK), LAYOUT)
    assert not faults
    assert back.client_ids == upload.client_ids
    np.testing.assert_array_equal(back.masks, upload.masks)
    np.testing.assert_array_equal(back.buffers, upload.buffers)
    for mine, theirs in zip(upload.values, back.values, strict=True):
        assert mine.dtype == theirs.dtype == dtype
        assert mine.tobytes() == theirs.tobytes()


def test_what_arrives_is_what_was_trained():
    model = sparse(3)
    reply = reply_from(1, encode_upload(upload_of(model), LAYOUT, cohort=False))
    strategy = FedAvg(upload="topk", pack_size=PACK, densify="contributors", **options())
    begin_round(strategy, MODEL, [1])
    arrays, _ = strategy.aggregate_train(1, [reply])
    row = LAYOUT.row([array.numpy() for array in arrays.values()])
    columns = Packs(LAYOUT.d, PACK).columns(model.mask)
    before = LAYOUT.row(list(MODEL.values()))
    np.testing.assert_allclose(row[: LAYOUT.d][columns], model.values, rtol=1e-6)
    np.testing.assert_array_equal(row[: LAYOUT.d][~columns], before[: LAYOUT.d][~columns])


def test_the_wire_carries_mask_bits_and_values_and_nothing_else():
    model = build_model("resnet20", (1, 28, 28), 10)
    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    layout = Layout.of(arrays)
    sent = layout.row(list(arrays.values()))
    trained = sent + np.random.default_rng(0).normal(size=layout.width).astype(np.float32)
    packs = Packs(layout.d)
    for ratio, half in ((0.01, True), (0.01, False), (0.5, True), (0.5, False)):
        kept = sparsify(trained, sent, layout, TopK(ratio, half=half, pack_size=packs.size))
        upload = TopKUpload.of_models([0], np.ones(1), [{}], packs, [kept], layout)
        minimum = packs.count / 8 + packs.scalars(kept.mask) * (2 if half else 4) + 4 * layout.num_buffers
        on_the_wire = wire_bytes(encode_upload(upload, layout, cohort=False))
        headers = 3 * 128  # of three arrays in NumPy's format
        assert minimum <= upload.client_bytes(layout)[0] == on_the_wire - headers < minimum * 1.02
        if ratio == 0.01 and half:
            assert on_the_wire < 12_000
        if ratio == 0.5:
            assert on_the_wire < minimum * 1.02


def options():
    return {"fraction_evaluate": 0.0, "min_available_nodes": 1, "min_train_nodes": 1}


def altered(**changes):
    """An honest client's arrays, some of them replaced (or left out, by None)."""
    honest = upload_of(sparse(0)).payload(LAYOUT, cohort=False)
    return {name: array for name, array in {**honest, **changes}.items() if array is not None}


HONEST = sparse(0)
BITS = np.packbits(HONEST.mask)
nan = HONEST.values.copy()
nan[1] = np.nan

HOSTILE = {
    "short mask": (altered(mask=BITS[:0]), r"'mask' has shape \(0,\), expected \(1,\)"),
    "long mask": (altered(mask=np.zeros(9, np.uint8)), r"'mask' has shape \(9,\), expected \(1,\)"),
    "mask as booleans": (altered(mask=np.ones(1, np.bool_)), "'mask' has dtype bool, expected uint8"),
    "bits beyond": (altered(mask=BITS | np.uint8(1)), "bits set beyond its 5 packs"),
    "more values than bits": (
        altered(values=np.append(HONEST.values, np.float32(1))),
        r"'values' has shape \(13,\), expected \(12,\)",
    ),
    "fewer values than bits": (altered(values=HONEST.values[:-1]), r"'values' has shape \(11,\)"),
    "values in a matrix": (altered(values=HONEST.values[None]), r"'values' has shape \(1, 12\)"),
    "float64 values": (altered(values=HONEST.values.astype(np.float64)), "expected float32 or float16"),
    "integer values": (altered(values=HONEST.values.astype(np.int32)), "dtype int32"),
    "NaN": (altered(values=nan), "NaN or Inf"),
    "Inf after a difference": (altered(values=np.full(12, -3.4e38, np.float32)), "so large"),
    "Inf in float16": (altered(values=np.full(12, np.inf, np.float16)), "NaN or Inf"),
    "NaN in the buffers": (altered(buffers=np.full(3, np.nan, np.float32)), "NaN or Inf"),
    "short buffers": (
        altered(buffers=np.zeros(2, np.float32)),
        r"'buffers' has shape \(2,\), expected \(3,\)",
    ),
    "no buffers": (altered(buffers=None), "a top-k upload has the arrays mask, values, buffers, got"),
    "a dense model": (dict(MODEL), "a top-k upload has the arrays mask, values, buffers, got"),
}


@pytest.mark.parametrize("make", [FedAvg, SafeSparse])
@pytest.mark.parametrize("fault", HOSTILE)
def test_hostile_uploads_are_quarantined_by_name(fault, make):
    arrays, reason = HOSTILE[fault]
    strategy = make(upload="topk", pack_size=PACK, **options())
    begin_round(strategy, MODEL, [1, 2, 3])
    honest = upload_of(HONEST).payload(LAYOUT, cohort=False)
    replies = [plain_reply(node, honest, 10, {"client-id": node}) for node in (1, 2)]
    result, _ = strategy.aggregate_train(1, [*replies, plain_reply(3, arrays, 10, {"client-id": 3})])
    ((client, why),) = strategy.last_round.rejections
    assert client == 3
    assert re.search(reason, why), why
    assert strategy.last_round.clients == [1, 2]
    assert all(np.isfinite(array.numpy()).all() for array in result.values())


def test_values_whose_difference_to_the_model_overflows_are_too_large():
    strategy = FedAvg(upload="topk", pack_size=PACK, **options())
    begin_round(strategy, {**MODEL, "b": np.full(4, 1e18, np.float32)}, [1, 2])
    honest = upload_of(HONEST).payload(LAYOUT, cohort=False)
    far = altered(values=np.full(12, -3e38, np.float32))
    strategy.aggregate_train(1, [plain_reply(1, honest), plain_reply(2, far)])
    ((client, reason),) = strategy.last_round.rejections
    assert client == 2
    assert reason.startswith("so large that its norm is above 1.84e+19")


def test_one_bad_client_of_a_cohort_does_not_cost_the_others_their_round():
    bad = SparseModel(HONEST.mask, nan, HONEST.buffers)
    upload = upload_of(HONEST, bad, sparse(2))
    strategy = FedAvg(upload="topk", pack_size=PACK, num_clients=3, fraction_evaluate=0.0)
    begin_round(strategy, MODEL, [5])
    strategy.aggregate_train(1, [reply_from(5, encode_upload(upload, LAYOUT, cohort=True))])
    assert strategy.last_round.clients == [0, 2]
    assert strategy.last_round.rejections == [(1, "NaN or Inf in the upload")]


def test_a_cohorts_values_must_be_as_many_as_its_masks_say():
    upload = upload_of(HONEST, sparse(1))
    content = encode_upload(upload, LAYOUT, cohort=True)
    arrays = upload.payload(LAYOUT, cohort=True)
    for change in ({"values": arrays["values"][:-1]}, {"mask": arrays["mask"][:1]}):
        broken = RecordDict({**content, "arrays": array_record({**arrays, **change})})
        upload_back, (fault,) = decode_reply(reply_from(1, broken), TopK(pack_size=PACK), LAYOUT)
        assert upload_back is None
        assert "expected" in fault.reason


def test_nobody_is_told_of_packs_unless_uploads_are_sparse():
    (message,) = begin_round(FedAvg(**options()), MODEL, [1])
    assert "pack-size" not in message.content["config"]
    (message,) = begin_round(FedAvg(upload="topk", pack_size=9, **options()), MODEL, [1])
    assert message.content["config"]["pack-size"] == 9
