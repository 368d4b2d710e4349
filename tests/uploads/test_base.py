"""Numbers that strangers report: believed only if they are numbers, finite and in range."""

import math

import numpy as np
import pytest

from byzflower.uploads.base import (
    MAX_METRIC,
    MAX_NUM_EXAMPLES,
    Rejected,
    can_be_averaged,
    check_num_examples,
    is_client_id,
    number,
)


@pytest.mark.parametrize("value", [1, 0.5, MAX_NUM_EXAMPLES, np.int64(7), np.float32(2.5), np.uint8(3)])
def test_believable_sizes(value):
    size = check_num_examples(value)
    assert type(size) is float
    assert size == value


UNBELIEVABLE = [
    *(10**400, -(10**400), 10**5000, MAX_NUM_EXAMPLES + 1, 0, -1, -0.0),
    *(math.nan, math.inf, -math.inf, np.float64("nan"), np.longdouble("1e4000"), np.uint64(2**64 - 1)),
    *(True, np.True_, None, "many", b"\xff", [], [3], 1j, np.complex64(3), np.array([1.0, 2.0]), object()),
]


@pytest.mark.parametrize("value", UNBELIEVABLE, ids=lambda value: f"{type(value).__name__}")
def test_unbelievable_sizes(value):
    with pytest.raises(Rejected, match=r"num-examples is .*, not a number in \(0, 1000000000\]") as caught:
        check_num_examples(value)
    assert len(str(caught.value)) < 120


def test_any_value_is_some_float():
    assert number(10**400) == math.inf
    assert number(np.float16(0.5)) == 0.5
    assert number(True) == 1.0
    for value in ("1.0", None, 1j, [1.0], np.array(1.0)):
        assert math.isnan(number(value))


def test_what_can_be_averaged_still_can_with_any_weights():
    for value in (0.0, -MAX_METRIC, MAX_METRIC):
        assert can_be_averaged(value)
        assert math.isfinite(sum([value * MAX_NUM_EXAMPLES] * 1000))
        assert math.isfinite(value**2 * MAX_NUM_EXAMPLES)
    for value in (math.nan, math.inf, -math.inf, 2 * MAX_METRIC):
        assert not can_be_averaged(value)


def test_client_ids():
    assert all(map(is_client_id, (0, 5, 2**64 - 1)))
    assert not any(map(is_client_id, (-1, 2**64, 10**400, True, False, 1.0, "1", None)))
