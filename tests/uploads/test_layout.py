"""Named arrays to one row and back: nothing lost, parameters first."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.nn.utils import parameters_to_vector

from byzflower.uploads import Layout
from byzflower.uploads.layout import is_buffer

pytestmark = pytest.mark.compat

shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
floats = st.sampled_from(["float16", "float32", "float64"]).flatmap(lambda t: hnp.arrays(t, shapes))
statistics = st.sampled_from(["float32", "float64"]).flatmap(lambda t: hnp.arrays(t, shapes))
counters = st.sampled_from(["int32", "int64"]).flatmap(
    lambda t: hnp.arrays(t, shapes, elements=st.integers(-(2**24), 2**24))
)
bytes_and_masks = st.sampled_from(["uint8", "bool"]).flatmap(lambda t: hnp.arrays(t, shapes))
layers = st.one_of(
    st.tuples(st.just("weight"), floats),
    st.tuples(st.sampled_from(["running_mean", "running_var"]), statistics),
    st.tuples(st.just("num_batches_tracked"), counters),
    st.tuples(st.just("mask"), bytes_and_masks),
)
models = st.lists(layers, min_size=1, max_size=6).map(
    lambda own: {f"layer{i}.{name}": array for i, (name, array) in enumerate(own)}
)


def batch_norm_net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(5, 2))
    net[1].num_batches_tracked += 77
    net[1].running_mean += 0.25
    return net, {name: tensor.numpy() for name, tensor in net.state_dict().items()}


@settings(max_examples=200, deadline=None)
@given(models)
def test_a_row_holds_every_array_exactly(arrays):
    layout = Layout.of(arrays)
    row = layout.row(list(arrays.values()))
    assert row.shape == (layout.width,)
    back = layout.arrays(row)
    for given_array, array in zip(arrays.values(), back, strict=True):
        assert array.dtype == given_array.dtype
        np.testing.assert_array_equal(array, given_array)
    assert np.array_equal(layout.row(back), row, equal_nan=True)


@given(models)
def test_parameters_come_first_each_in_the_models_order(arrays):
    layout = Layout.of(arrays)
    trained = [a.ravel() for name, a in arrays.items() if name.endswith("weight")]
    rest = [a.ravel() for name, a in arrays.items() if not name.endswith("weight")]
    assert layout.d == sum(map(len, trained))
    assert layout.num_buffers == sum(map(len, rest))
    expected = np.concatenate([*trained, *rest]).astype(layout.row_dtype)
    assert np.array_equal(layout.row(list(arrays.values())), expected, equal_nan=True)


def test_batch_norm_statistics_follow_what_is_trained():
    net, arrays = batch_norm_net()
    layout = Layout.of(arrays)
    row = layout.row(list(arrays.values()))
    trained = parameters_to_vector(net.parameters()).detach().numpy()
    assert layout.d == len(trained)
    assert np.array_equal(row[: layout.d], trained)
    assert row[layout.d :].tolist() == [0.25] * 4 + [1.0] * 4 + [77.0]
    assert layout.row_dtype == np.float32
    counter = dict(zip(layout.names, layout.arrays(row), strict=True))["1.num_batches_tracked"]
    assert counter.dtype == np.int64
    assert counter.shape == ()
    net.load_state_dict({n: torch.tensor(a) for n, a in zip(layout.names, layout.arrays(row), strict=True)})


@pytest.mark.parametrize(
    ("name", "dtype", "buffer"),
    [
        ("conv.weight", "float32", False),
        ("bn.running_mean", "float32", True),
        ("running_var", "float64", True),
        ("bn.num_batches_tracked", "float32", True),
        ("bn.num_batches_tracked", "int64", True),
        ("running_mean.weight", "float32", False),
        ("my_running_mean", "float32", False),
        ("table", "int32", True),
        ("mask", "bool", True),
        ("half", "float16", False),
    ],
)
def test_buffers_are_told_by_their_name_or_type(name, dtype, buffer):
    assert is_buffer(name, np.dtype(dtype)) == buffer


def test_one_float64_array_makes_float64_rows():
    narrow, wide = np.ones(2, np.float32), np.full(3, 1 / 3)
    assert Layout.of({"a": narrow}).row_dtype == np.float32
    assert Layout.of({"a": narrow.astype(np.float16)}).row_dtype == np.float32
    layout = Layout.of({"a": narrow, "b": wide})
    assert layout.row_dtype == np.float64
    assert layout.arrays(layout.row([narrow, wide]))[1].tolist() == wide.tolist()


def test_averaged_counters_are_rounded():
    layout = Layout.of({"w": np.ones(1, np.float32), "steps": np.array([0, 0, 0])})
    _, steps = layout.arrays(np.array([0.4, 1.6, 2.4, -1.6], np.float32))
    assert steps.tolist() == [2, 2, -2]


def test_views_share_the_rows_memory():
    _, arrays = batch_norm_net()
    layout = Layout.of(arrays)
    row = np.zeros(layout.width, np.float32)
    for view, shape in zip(layout.views(row), layout.shapes, strict=True):
        assert view.shape == shape
        view += 1
    assert row.tolist() == [1] * layout.width


def test_rows_of_a_matrix_are_written_in_place():
    _, arrays = batch_norm_net()
    layout = Layout.of(arrays)
    matrix = np.full((3, layout.width), np.nan, np.float32)
    layout.write_row(list(arrays.values()), matrix[1])
    assert np.array_equal(matrix[1], layout.row(list(arrays.values())))
    assert np.isnan(matrix[[0, 2]]).all()


def test_lists_are_named_by_position():
    arrays = [np.zeros((2, 3), np.float32), np.array(5)]
    layout = Layout.of_list(arrays)
    assert layout == Layout.of({"0": arrays[0], "1": arrays[1]})
    assert (layout.d, layout.num_buffers) == (6, 1)
    assert hash(layout) == hash(Layout.of_list([array + 1 for array in arrays]))


@pytest.mark.parametrize(
    "other",
    [
        {"b": np.zeros(2, np.float32)},
        {"a": np.zeros((1, 2), np.float32)},
        {"a": np.zeros(2)},
        {"a": np.zeros(2, np.float32), "b": np.zeros(0, np.float32)},
    ],
)
def test_layouts_of_other_models_differ(other):
    assert Layout.of({"a": np.zeros(2, np.float32)}) != Layout.of(other)


def test_no_model_is_refused():
    with pytest.raises(ValueError, match="the global model has no arrays"):
        Layout.of({})


@pytest.mark.parametrize(
    "array", [np.zeros(2, complex), np.array([{}]), np.array(["a"]), np.zeros(1, "M8[s]")]
)
def test_what_cannot_be_averaged_is_refused_by_name(array):
    with pytest.raises(ValueError, match="array 'odd' of the global model has unsupported dtype"):
        Layout.of({"fine": np.zeros(2), "odd": array})


def test_another_number_of_arrays_or_columns_is_refused():
    layout = Layout.of_list([np.zeros(2, np.float32), np.zeros(3, np.float32)])
    for wrong in ([np.zeros(2)], [np.zeros(2), np.zeros(3), np.zeros(1)], [np.zeros(3), np.zeros(3)]):
        with pytest.raises(ValueError):  # noqa: PT011
            layout.row(wrong)
    with pytest.raises(ValueError):  # noqa: PT011
        layout.arrays(np.zeros(4))
