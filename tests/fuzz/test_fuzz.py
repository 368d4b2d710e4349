"""A few hundred of the hostile trial's millions of cases, and every case that once failed."""

import os

import pytest

from .cases import Case, kept_cases
from .draw import draw_case
from .run import run_numbers
from .trial import run_case

# How many cases of the trial pytest runs. Its long form is `python -m tests.fuzz`.
_CASES = int(os.environ.get("BYZFLOWER_FUZZ_CASES", "400"))
_PARTS = 4
_KEPT = kept_cases()


@pytest.mark.parametrize("part", range(_PARTS))
def test_hostile_replies(part):
    size = _CASES // _PARTS
    tally = run_numbers(0, range(part * size, (part + 1) * size))
    assert tally.cases.total() == size
    assert not tally.failures, tally.examples


@pytest.mark.parametrize("name", _KEPT)
def test_what_once_failed(name):
    assert run_case(_KEPT[name]) == []


def test_a_case_is_the_same_every_time_and_survives_being_written_down():
    for number in range(200):
        case = draw_case(3, number)
        assert repr(draw_case(3, number)) == repr(case)
        assert repr(Case.from_json(case.to_json())) == repr(case)
