"""Claims are judged from results, and what a recipe tries is searched for the worst."""

import math

import pytest

from byzflower.experiments.claims import verdicts
from byzflower.experiments.recipe import Claim, Recipe
from byzflower.experiments.report.results import Report, Run
from byzflower.server.config.classification import RunConfig

ACCURACY = {  # (attack, strategy) -> per seed
    ("a", "x"): (0.50, 0.60),
    ("b", "x"): (0.58, 0.56),
    ("c", "x"): (0.90, 0.80),
    ("a", "y"): (0.70, 0.70),
    ("b", "y"): (0.60, 0.80),
    ("c", "y"): (0.60, 0.61),
}


def report(accuracy=ACCURACY, tries=(), **recipe):
    runs = [
        Run({"attack": attack, "strategy": strategy, "seed": str(seed)}, RunConfig(), {"accuracy": value})
        for (attack, strategy), values in accuracy.items()
        for seed, value in enumerate(values)
        if value is not None
    ]
    axes = {
        "attack": list(dict.fromkeys(a for a, _ in accuracy)),
        "strategy": list(dict.fromkeys(s for _, s in accuracy)),
        "seed": ["0", "1"],
    }
    return Report("r", Recipe(title="t", cross={}, **recipe), axes, [*runs, *tries])


def judge(report, **claim):
    return verdicts(report, Claim(text="t", **claim))


def test_a_claim_is_judged_at_every_place():
    at_x, at_y = judge(report(), lower={"attack": "a"})
    assert (at_x.place, at_x.holds, at_x.against) == ({"strategy": "x"}, True, {"attack": "b"})
    assert (at_x.lower.mean, at_x.than.mean) == (pytest.approx(0.55), pytest.approx(0.57))
    assert (at_x.seeds, at_x.of) == (1, 2)
    assert (at_y.place, at_y.holds, at_y.against) == ({"strategy": "y"}, False, {"attack": "c"})
    assert (at_y.seeds, at_y.of) == (0, 2)
    assert (
        str(at_x)
        == "x: holds on average only: 0.550 ± 0.071 against 0.570 ± 0.014 (b); seed by seed in 1 of 2"
    )
    assert str(at_y).startswith("y: does not hold: 0.700 ± 0.000 against 0.605 ± 0.007 (c)")


def test_a_claim_may_name_whom_where_and_by_how_much():
    (only,) = judge(
        report(), lower={"attack": "a"}, than={"attack": ["b"]}, where={"strategy": ["x"]}, by=0.015
    )
    assert only.holds
    (only,) = judge(report(), lower={"attack": "a"}, than={"attack": "b"}, where={"strategy": "x"}, by=0.025)
    assert not only.holds
    (only,) = judge(report(), lower={"attack": "c"}, than={"attack": "b"}, where={"strategy": "x"}, by=-0.5)
    assert only.holds  # not higher by more than 0.5


def test_both_sides_may_differ_on_several_axes():
    (verdict,) = judge(report(), lower={"attack": "a", "strategy": "x"}, than={"strategy": "y"})
    assert verdict.place == {}
    assert verdict.against == {"attack": "a", "strategy": "y"}
    assert str(verdict).startswith("holds: 0.550")
    (verdict,) = judge(report(), lower={"attack": "a", "strategy": "x"})
    assert verdict.against == {"attack": "b", "strategy": "x"}


def test_equal_is_not_lower():
    (verdict, _) = judge(report({**ACCURACY, ("b", "x"): (0.50, 0.60)}), lower={"attack": "a"})
    assert not verdict.holds
    assert verdict.seeds == 0


def test_what_has_no_result_is_left_out():
    partly = {**ACCURACY, ("b", "x"): (None, None), ("a", "y"): (None, None), ("c", "x"): (None, 0.7)}
    (verdict,) = judge(report(partly), lower={"attack": "a"})
    assert verdict.place == {"strategy": "x"}
    assert verdict.against == {"attack": "c"}
    assert verdict.of == 1
    assert judge(report(dict.fromkeys(ACCURACY, (None, None))), lower={"attack": "a"}) == []


def test_of_several_tries_the_worst_is_shown():
    def tried(name, *values):
        return [
            Run(
                {"attack": "s", "strategy": "x", "seed": str(seed)},
                RunConfig(),
                {"accuracy": value, "recall": value},
                tried=name,
            )
            for seed, value in enumerate(values)
        ]

    tries = [*tried("nu=1", 0.9, 0.3), *tried("nu=2", 0.5, 0.4), *tried("nu=3", 0.9, 0.9)]
    ours = report({("a", "x"): (0.5, 0.6)}, tries)
    ours.axes["attack"].append("s")
    for metric in ("accuracy", "recall"):
        entry = ours.table(metric, {}).entries["s", "x"]
        assert entry.tried == "nu=2"
        assert entry.value.mean == pytest.approx(0.45)
    (verdict,) = judge(ours, lower={"attack": "s"})
    assert (verdict.holds, verdict.lower.mean) == (True, pytest.approx(0.45))
    waiting = [*tries, Run({"attack": "s", "strategy": "x", "seed": "0"}, RunConfig(), None, tried="nu=4")]
    assert report({("a", "x"): (0.5, 0.6)}, waiting).shown({"attack": "s"})[0].tried == "nu=2"


def test_the_best_of_a_row_is_the_recipes():
    for best, column in (("highest", "x"), ("lowest", "y")):
        table = report(best=best).table("accuracy", {})
        assert table.entries["c", column].best
        assert not table.entries["c", "y" if column == "x" else "x"].best


def test_the_papers_numbers_may_be_a_table():
    known = [
        {"attack": "a", "accuracy": {"x": 0.4, "y": 0.5}},
        {"attack": "b", "strategy": "y", "accuracy": 0.6},
    ]
    table = report(paper=known).table("accuracy", {})
    papers = {key: entry.paper for key, entry in table.entries.items() if entry.paper is not None}
    assert papers == {("a", "x"): 0.4, ("a", "y"): 0.5, ("b", "y"): 0.6}
    assert table.entries["a", "x"].difference == pytest.approx(0.15)
    assert math.isclose(table.entries["a", "x"].value.std, 0.1 / math.sqrt(2))
