"""Arrays that are not copied until somebody asks for bytes, and bytes that nobody should trust."""

import gc
import pickle
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import cloudpickle
import numpy as np
import pytest
from flwr.common import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from byzflower.flower.compat import (
    DecodeError,
    MemoryArray,
    array_bytes,
    array_record,
    array_view,
    npy_view,
    wire_bytes,
)

try:
    from flwr.common.inflatable import get_all_nested_objects
    from flwr.common.inflatable_utils import inflate_object_from_contents
except ImportError:  # newer Flower
    from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
    from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

pytestmark = [pytest.mark.compat, pytest.mark.filterwarnings("ignore")]

DTYPES = ["float16", "float32", "float64", "int8", "uint8", "int32", "int64", "bool", ">f4", "complex64"]
ORDERS = {
    "as made": lambda x: x,
    "fortran": np.asfortranarray,
    "transposed": np.transpose,
    "every other": lambda x: x[::2] if x.ndim else x,
    "backwards": lambda x: x[::-1] if x.ndim else x,
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
}
arrays = st.tuples(
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    ),
    st.sampled_from(list(ORDERS)),
).map(lambda case: ORDERS[case[1]](case[0]))


def sent(payload, stype="numpy.ndarray"):
    return Array(dtype="float32", shape=(1,), stype=stype, data=payload)


def through_protobuf(content):
    return recorddict_from_proto(ProtoRecordDict.FromString(recorddict_to_proto(content).SerializeToString()))


def through_objects(content):
    contents = {name: thing.deflate() for name, thing in get_all_nested_objects(content).items()}
    return inflate_object_from_contents(content.object_id, contents)


TRIPS = {
    "pickle": lambda x: pickle.loads(pickle.dumps(x, protocol=5)),
    "cloudpickle": lambda x: cloudpickle.loads(cloudpickle.dumps(x)),
    "protobuf": through_protobuf,
    "objects": through_objects,
}


def same(a, b):
    """Equal to the bit, NaN and negative zero included."""
    return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


@settings(max_examples=200, deadline=None)
@given(arrays)
def test_serialises_to_what_flower_makes_of_the_same_values(x):
    ours, flowers = MemoryArray(x), Array(np.asarray(x, order="C"))
    assert (ours.dtype, ours.shape, ours.stype) == (flowers.dtype, flowers.shape, flowers.stype)
    assert ours.data == flowers.data
    assert ours.deflate() == flowers.deflate()
    assert ours.object_id == flowers.object_id
    assert ours == flowers
    assert flowers == ours
    assert same(ours.numpy(), x)


@pytest.mark.parametrize("trip", TRIPS)
@settings(max_examples=50, deadline=None)
@given(st.lists(arrays, max_size=3))
def test_survives_every_way_of_travelling(trip, xs):
    named = {f"layer.{i}": x for i, x in enumerate(xs)}
    content = RecordDict({"arrays": array_record(named), "metrics": MetricRecord({"num-examples": 3})})
    arrived = TRIPS[trip](content)
    record = arrived["arrays"]
    assert dict(arrived["metrics"]) == {"num-examples": 3}
    assert list(record) == list(named)
    for name, x in named.items():
        assert same(record[name].numpy(), x)
        assert same(array_view(record[name]), x)
        assert record[name] == Array(np.asarray(x, order="C"))


def test_differs_from_arrays_with_other_values_shapes_or_types():
    x = np.arange(6, dtype=np.float32)
    for other in (x + 1, x.reshape(2, 3), x.astype(np.float64), x[:5]):
        assert MemoryArray(x) != MemoryArray(other)
        assert MemoryArray(x) != Array(other)
    assert MemoryArray(x) != x.tolist()


def test_is_not_copied_in_memory_nor_out_of_band():
    x = np.arange(1000.0)
    array = MemoryArray(x)
    assert np.shares_memory(array_view(array), x)
    buffers = []
    pickled = pickle.dumps(array, protocol=5, buffer_callback=buffers.append)
    assert len(pickled) < 500
    assert np.shares_memory(array_view(pickle.loads(pickled, buffers=buffers)), x)


@pytest.mark.parametrize("make", [MemoryArray, Array])
def test_views_are_read_only_and_share_memory(make):
    x = np.arange(6.0).reshape(2, 3)
    array = make(x)
    view = array_view(array)
    assert np.shares_memory(view, x if make is MemoryArray else np.frombuffer(array.data, np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 1
    array.numpy()[0, 0] = 1  # a copy
    assert view[0, 0] == x[0, 0] == 0
    x[0, 0] = 7  # the sender's own array stays writable


@given(arrays)
def test_views_of_flowers_own_arrays_are_their_values(x):
    assert same(array_view(Array(x)), x)  # in Fortran order, too


def npy(text, body, version=b"\x01\x00", length=None):
    text = text.encode("latin1", "replace")
    size = struct.pack("<H" if version == b"\x01\x00" else "<I", len(text) if length is None else length)
    return b"\x93NUMPY" + version + size + text + body


def header(dtype="'<f4'", shape="(1,)", fortran="False"):
    return f"{{'descr': {dtype}, 'fortran_order': {fortran}, 'shape': {shape}}}"


TYPES = r"'|O' '<U2' '|V0' '<M8[s]' [('a','<f4')] ('<f4',(2,)) () ('<f4',) [] {} 4 None '<f4,<f4' '\ud800'"
SHAPES_OF_ONE = ["(-1,)", "(-1, -1)", "(True,)", "(1.0,)", "[1]", "(2,)", f"({10**30},)", f"({'1,' * 100})"]
SHAPES_OF_NONE = ["(-1, 0)", f"(0, {10**30})", f"(0, {2**62}, {2**62})"]
HEADERS = [
    "",
    "{",
    "{\0",
    "{'descr': '<f4', 'shape': (3,",
    "(" * 200,
    "1" + "+1" * 1500,
    "[1]",
    "{1: 2, 'a': 3}",
]
HOSTILE = [
    b"",
    b"\x93NUM",
    npy(header(), bytes(4), b"\x09\x09"),
    npy(header(), bytes(4), b"\x02\x00", 2**32 - 1),
    npy(header(fortran="2"), bytes(4)),
    *(npy(header(dtype), bytes(8)) for dtype in TYPES.split(" ")),
    *(npy(header(shape=shape), bytes(4)) for shape in SHAPES_OF_ONE),
    *(npy(header(shape=shape), b"") for shape in SHAPES_OF_NONE),
    *(npy(text, bytes(4)) for text in HEADERS),
]


@pytest.mark.parametrize("payload", HOSTILE, ids=lambda payload: repr(payload[10:70]))
def test_hostile_bytes_are_a_decode_error(payload):
    with pytest.raises(DecodeError):
        array_view(sent(payload))


def test_hand_made_headers_are_hostile_by_their_content_only():
    assert array_view(sent(npy(header(), struct.pack("<f", 1.5)))).tolist() == [1.5]


def assert_harmless(payload):
    try:
        view = array_view(sent(payload), max_bytes=1000)
    except DecodeError:
        return
    assert view.dtype.kind in "fiubc"
    assert view.nbytes < len(payload)
    assert not view.flags.writeable


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\x40\x00"]))
def test_random_bytes_are_harmless(payload, start):
    assert_harmless(start + payload)


sides = st.sampled_from([-4, -1, 0, 1, 2, 2**31, 2**63, 10**30, True, None, 0.5, "x"])
dtypes = st.sampled_from(
    ["'<f4'", "'|b1'", "'O'", "''", "'f4,f4'", "('<f4', 2)", "()", "[]", "{}", "-1", "b'<f4'"]
)


@settings(max_examples=300, deadline=None)
@given(
    dtypes,
    st.lists(sides, max_size=5),
    st.booleans(),
    st.sampled_from([0, 1, 4, 16]),
    st.sampled_from([1, 2]),
)
def test_well_formed_headers_with_any_content_are_harmless(dtype, shape, fortran, size, version):
    assert_harmless(npy(header(dtype, tuple(shape), fortran), bytes(size), bytes([version, 0])))


@settings(max_examples=300, deadline=None)
@given(arrays, st.lists(st.tuples(st.integers(0, 140), st.integers(0, 255)), max_size=3), st.integers(0, 200))
def test_mutated_arrays_are_harmless(x, changes, cut):
    payload = bytearray(Array(x).data)
    for position, value in changes:
        payload[position % len(payload)] = value
    assert_harmless(bytes(payload[: len(payload) - cut] if cut < 100 else payload))


def test_other_serialisations_and_oversized_payloads_are_refused_unread():
    with pytest.raises(DecodeError, match="unknown serialisation 'pickle'"):
        array_view(sent(Array(np.zeros(2)).data, "pickle"))
    assert array_view(Array(np.zeros(100)), max_bytes=800).shape == (100,)
    with pytest.raises(DecodeError, match="at most 800 are expected"):
        array_view(Array(np.zeros(1000)), max_bytes=800)


@given(st.lists(arrays, max_size=4))
def test_counted_bytes_are_those_sent_up_to_header_padding(xs):
    ours = RecordDict({"arrays": array_record({str(i): x for i, x in enumerate(xs)})})
    flowers = RecordDict({"arrays": ArrayRecord({str(i): Array(x) for i, x in enumerate(xs)})})
    counted = wire_bytes(ours)
    assert not any("_data" in vars(array) for array in ours["arrays"].values())  # nothing was serialised
    assert wire_bytes(flowers) == sum(len(array.data) for array in flowers["arrays"].values())
    assert abs(counted - wire_bytes(flowers)) <= 64 * len(xs)
    overhead = len(recorddict_to_proto(ours).SerializeToString()) - counted
    assert -64 * len(xs) <= overhead <= 200 * (len(xs) + 1)
    assert counted == sum(array_bytes(array) for array in ours["arrays"].values())


def test_honest_arrays_are_read_on_many_threads_at_once():
    """Python's own parser of such headers fails at random here (CPython 3.11, 3.12)."""

    class Cycle:
        def __init__(self):
            self.me = self

        def __del__(self):
            time.sleep(0)  # the collector lets another thread in, also in the middle of a parse

    payload = Array(np.zeros((2, 4), np.float32)).data

    def read(_):
        Cycle()
        return npy_view(payload).shape

    before = gc.get_threshold()
    gc.set_threshold(5, 2, 2)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(read, range(4000))) == {(2, 4)}
    finally:
        gc.set_threshold(*before)
