"""Moments uploads: full and compact are the same bits; everything hostile is refused by name."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from byzflower.uploads import Layout, Rejected
from byzflower.uploads.moments import Moments
from byzflower.uploads.moments_layout import MomentsLayout, Touched, blocks, moments_layout
from byzflower.uploads.moments_upload import COMPACT
from byzflower.uploads.optimizers import Adam

SHAPES = {
    "tables": {"p": (7, 3), "q": (5, 3)},  # all rows of one width
    "mixed": {"w": (4, 3), "b": (4,), "scale": (), "bn.running_mean": (4,), "k": (2, 3, 2)},
}
SLOTS = ("m", "v")
ADAM = Adam()


def layout_of(kind):
    model = Layout.of({name: np.zeros(shape, np.float32) for name, shape in SHAPES[kind].items()})
    return MomentsLayout(model, SLOTS)


def broadcast(layout, seed=0):
    row = np.random.default_rng(seed).normal(size=layout.full.width).astype(np.float32)
    state = layout.state(row)
    state[2] = np.abs(state[2])
    return row


def rest_of(layout, row):
    return ADAM.step(torch.from_numpy(layout.state(row)), torch.zeros(()), 3).numpy()


def full_uploads(layout, row, touched):
    """What clients that touch these rows send in the full form."""
    rows = []
    for i, mine in enumerate(touched):
        g = np.zeros(layout.model.d, np.float32)
        for r in mine:
            start, stop = layout.starts[r], layout.starts[r + 1]
            g[start:stop] = np.random.default_rng(100 * i + r).normal(size=stop - start)
        state = ADAM.step(torch.from_numpy(layout.state(row)), torch.from_numpy(g), 3).numpy()
        buffers = np.full(layout.model.num_buffers, i, np.float32)
        rows.append(np.concatenate([state.reshape(-1), buffers]))
    return rows


def parse(arrays, layout, ids=(0,), cohort=False):
    ids = list(ids)
    return Moments(ADAM).decode(arrays, layout.full, ids, np.ones(len(ids)), [{} for _ in ids], cohort=cohort)


def named(layout, row):
    return dict(zip(layout.full.names, layout.full.arrays(row), strict=True))


@pytest.mark.parametrize("kind", SHAPES)
def test_the_layout_knows_model_moments_and_rows(kind):
    layout = layout_of(kind)
    assert moments_layout(layout.full) == layout
    assert layout.full.d == 3 * layout.model.d
    rows = sum(s[0] if len(s) > 1 else 1 for n, s in SHAPES[kind].items() if "running" not in n)
    assert layout.num_rows == rows
    assert layout.starts[-1] == layout.model.d
    assert layout.unit == (3 if kind == "tables" else 1)


def test_arrays_without_moments_are_no_broadcast():
    with pytest.raises(ValueError, match="not a model and the moments of its parameters"):
        moments_layout(layout_of("tables").model)


def state_of(client, rest, layout):
    """All parameters and moments of one client: (depth, d)."""
    state = rest.copy()
    columns = np.repeat(np.isin(np.arange(layout.num_rows), client.rows), layout.widths)
    state[:, columns] = client.values
    return state


@pytest.mark.parametrize("kind", SHAPES)
@given(data=st.data())
def test_full_and_compact_decode_to_the_same_bits(kind, data):
    layout = layout_of(kind)
    row = broadcast(layout)
    rest = rest_of(layout, row)
    touched = data.draw(
        st.lists(st.sets(st.integers(0, layout.num_rows - 1)), min_size=1, max_size=4), label="touched"
    )
    rows = full_uploads(layout, row, touched)
    ids = list(range(len(rows)))
    cohort = parse({"rows": np.stack(rows)}, layout, ids, cohort=True)
    compact = cohort.without_untouched(rest, layout)
    again = parse(compact.payload(layout.full, cohort=True), layout, ids, cohort=True)
    reversed_twice = again.take(ids[::-1]).take(ids[::-1])
    for i, own in enumerate(rows):
        alone = parse(named(layout, own), layout, [i])
        small = alone.without_untouched(rest, layout)
        for upload, position in ((alone, 0), (small, 0), *((u, i) for u in (cohort, again, reversed_twice))):
            client = upload.client(position)
            assert state_of(client, rest, layout).tobytes() == layout.state(own).tobytes()
            assert client.buffers.tolist() == own[3 * layout.model.d :].tolist()
        assert small.client(0).rows.tolist() == again.client(i).rows.tolist() == sorted(touched[i])


@pytest.mark.parametrize("size", [1, 2, 5, 100])
@given(data=st.data())
def test_blocks_are_the_units_of_the_rows_in_order(size, data):
    widths = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=12))
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, len(widths) - 1)))), np.int32)
    starts = np.concatenate([[0], np.cumsum(widths)])
    units = [unit for row in rows for unit in range(starts[row], starts[row + 1])]
    found, places = [], []
    for own, part in blocks(starts, rows, size):
        assert 0 < own.stop - own.start <= size
        places += range(own.start, own.stop)
        found += np.arange(sum(widths))[part].tolist()
    assert found == units
    assert places == list(range(len(units)))


def test_nothing_is_copied_of_what_arrived():
    layout = layout_of("tables")
    compact = {name: array.copy() for name, array in compact_arrays().items()}
    matrix = {"rows": np.stack([broadcast(layout), broadcast(layout)])}
    for arrays, source in ((compact, compact["values"]), (matrix, matrix["rows"])):
        upload = parse(arrays, layout, [0, 1], cohort=True).take([1])
        kept = layout.without_untouched(upload.client(0), np.zeros((3, layout.model.d), np.float32))
        assert np.shares_memory(kept.values, source)


def test_bytes_are_those_of_the_compact_form():
    layout = layout_of("mixed")
    row = broadcast(layout)
    (full,) = full_uploads(layout, row, [{0, 4}])
    upload = parse(named(layout, full), layout).without_untouched(rest_of(layout, row), layout)
    arrays = upload.payload(layout.full, cohort=False)
    assert upload.client_bytes(layout.full) == [sum(a.nbytes for a in arrays.values())]


def compact_arrays():
    return {
        "touched": np.array([1, 3, 0, 6], np.int32),
        "splits": np.array([0, 2, 4], np.int64),
        "values": np.ones((3, 12), np.float32),
        "buffers": np.ones((2, 0), np.float32),
    }


def changed(**changes):
    return {name: changes.get(name, array) for name, array in compact_arrays().items()}


HOSTILE = {
    "other type of rows": (changed(touched=np.array([1, 3, 0, 6], np.int64)), "'touched' is int64"),
    "rows in two dimensions": (changed(touched=np.zeros((2, 2), np.int32)), "'touched' is int32 of 2"),
    "double values": (changed(values=np.ones((3, 12))), "'values' is float64"),
    "splits too short": (changed(splits=np.array([0, 4])), "'splits' does not divide 4 touched rows among 2"),
    "splits beyond the end": (changed(splits=np.array([0, 2, 5])), "does not divide"),
    "splits descend": (changed(splits=np.array([0, 5, 4])), "does not divide"),
    "splits that overflow": (changed(splits=np.array([0, 2**63 - 1, -2, 4])), "does not divide"),
    "splits not from 0": (changed(splits=np.array([1, 2, 4])), "does not divide"),
    "negative row": (changed(touched=np.array([-1, 3, 0, 6], np.int32)), r"not all in \[0, 12\)"),
    "row too high": (changed(touched=np.array([1, 12, 0, 6], np.int32)), r"not all in \[0, 12\)"),
    "a row twice": (changed(touched=np.array([3, 3, 0, 6], np.int32)), "not ascending"),
    "rows descend": (changed(touched=np.array([1, 3, 6, 0], np.int32)), "not ascending"),
    "values too short": (
        changed(values=np.ones((3, 11), np.float32)),
        r"has shape \(3, 11\), expected \(3, 12\)",
    ),
    "a slot too many": (changed(values=np.ones((4, 12), np.float32)), r"has shape \(4, 12\)"),
    "buffers that are not there": (changed(buffers=np.ones((2, 1), np.float32)), "'buffers' has shape"),
    "an array missing": (
        {k: v for k, v in compact_arrays().items() if k != "splits"},
        "a cohort sends one array",
    ),
    "rows of the wrong width": ({"rows": np.ones((2, 5), np.float32)}, "cohort matrix has shape"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_arrays_are_refused_with_the_reason(name):
    arrays, reason = HOSTILE[name]
    clients = range(3 if name == "splits that overflow" else 2)
    with pytest.raises(Rejected, match=reason):
        parse(arrays, layout_of("tables"), clients, cohort=True)


def test_honest_arrays_of_that_form_are_not_and_clients_may_touch_nothing():
    assert len(parse(compact_arrays(), layout_of("tables"), [0, 1], cohort=True)) == 2
    nothing = changed(
        touched=np.empty(0, np.int32), splits=np.zeros(3, np.int64), values=np.empty((3, 0), np.float32)
    )
    full = layout_of("tables").full
    assert parse(nothing, layout_of("tables"), [0, 1], cohort=True).client_bytes(full) == [16, 16]
    assert tuple(compact_arrays()) == COMPACT


@pytest.mark.parametrize("array", ["w", "b"])
@pytest.mark.parametrize("slot", [0, 1, 2])
def test_a_value_that_the_models_own_dtype_cannot_hold_is_named(array, slot):
    model = Layout.of(
        {"w": np.zeros((4, 3), np.float32), "v": np.zeros(2, np.float64), "b": np.zeros(4, np.float32)}
    )
    layout = MomentsLayout(model, SLOTS)
    rows = np.arange(1, layout.num_rows, dtype=np.int32)
    values = np.full((3, layout.widths[rows].sum()), 1e300)  # float64, as compact uploads of such models are
    column = {"w": 4, "b": -1}[array]
    wide = slice(9, 11)  # of v
    values[:, : wide.start] = values[:, wide.stop :] = 1.0
    client = Touched(rows, values, np.empty(0))
    assert layout.misfit(client) is None
    values[slot, column] = 1e39
    assert layout.misfit(client) == f"values of array {array!r} that float32 cannot hold"
    assert layout.misfit(Touched(rows[:0], values[:, :0], np.empty(0))) is None


def test_a_buffer_that_its_own_dtype_cannot_hold_is_named():
    model = Layout.of({"v": np.zeros(2, np.float64), "bn.running_mean": np.zeros(3, np.float32)})
    layout = MomentsLayout(model, SLOTS)
    nothing, none = np.empty(0, np.int32), np.empty((3, 0))
    assert layout.misfit(Touched(nothing, none, np.full(3, 1e38))) is None
    fault = layout.misfit(Touched(nothing, none, np.array([0, 1e39, 0])))
    assert fault == "values of array 'bn.running_mean' that float32 cannot hold"
