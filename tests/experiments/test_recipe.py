"""Recipes: what they expand to, and that every mistake is named before anything runs."""

from pathlib import Path

import pytest

from byzflower.experiments.recipe import RecipeError, find_recipes, load_plan, select

ROOT = Path(__file__).parents[2]
GOOD = """
title = "t"
[base]
model = "mlp"
clients = 9
byzantine = 2
rounds = 2
[cross]
attack = ["labelflip", {label = "strong", attack = "ipm", attack-options = "eps=10"}]
strategy = ["fedavg", "median", "krum"]
seed = [1, 2]
[quick]
note = "smaller"
base = {rounds = 1}
cross = {seed = [1]}
"""


def recipe(tmp_path, text):
    path = tmp_path / "r.toml"
    path.write_text(text)
    return path


def test_every_combination_is_a_run(tmp_path):
    plan = load_plan(recipe(tmp_path, GOOD))
    assert len(plan.cells) == 12
    assert len({cell.config.folder() for cell in plan.cells}) == 12
    first, last = plan.cells[0], plan.cells[-1]
    assert first.labels == {"attack": "labelflip", "strategy": "fedavg", "seed": "1"}
    assert last.labels == {"attack": "strong", "strategy": "krum", "seed": "2"}
    assert (last.config.attack, last.config.attack_options) == ("ipm", {"eps": 10})
    assert plan.folder("runs") == Path("runs/r/full")


def test_the_quick_scale_is_smaller_and_elsewhere(tmp_path):
    full, quick = (load_plan(recipe(tmp_path, GOOD), scale) for scale in ("full", "quick"))
    assert len(quick.cells) == 6
    assert {cell.config.rounds for cell in quick.cells} == {1}
    assert not {c.config.folder() for c in full.cells} & {c.config.folder() for c in quick.cells}
    assert quick.note == "smaller"


def test_exclusions_and_selections(tmp_path):
    text = GOOD + '[[exclude]]\nattack = "strong"\nstrategy = "krum"\nwhy = "known"\n'
    plan = load_plan(recipe(tmp_path, text))
    assert (len(plan.cells), plan.excluded) == (10, 2)
    assert len(select(plan.cells, plan.axes, ["attack=strong"])) == 4
    assert len(select(plan.cells, plan.axes, ["attack=strong", "strategy=median,fedavg", "seed=1"])) == 2


def test_an_option_may_be_tried(tmp_path):
    text = GOOD.replace('attack-options = "eps=10"', 'tries = {attack-options = ["eps=1", "eps=2"]}')
    plan = load_plan(recipe(tmp_path, text))
    assert plan.axes["attack"] == ["labelflip", "strong"]
    assert len(plan.cells) == 6 + 12
    strong = [cell for cell in plan.cells if cell.labels == {**cell.labels, "attack": "strong", "seed": "1"}]
    assert [cell.tried for cell in strong] == ["eps=1", "eps=2"] * 3
    assert {cell.config.attack_options["eps"] for cell in strong} == {1, 2}
    assert {cell.tried for cell in plan.cells if cell.labels["attack"] == "labelflip"} == {""}


def test_two_recipes_of_one_name_would_mix_their_results(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.toml").write_text(GOOD)
    with pytest.raises(RecipeError, match=r"a/same\.toml and .*b/same\.toml have the same name"):
        find_recipes(tmp_path)


CLAIM = GOOD + '[[claim]]\ntext = "c"\n'
MISTAKES = {
    "claim without a side": (CLAIM, "Field required"),
    "claim of nothing": (CLAIM + "lower = {}\n", "claim 'c': 'lower' must name an axis other than the seed"),
    "claim of what is not there": (
        CLAIM + 'lower = {attack = "strog"}\n',
        "claim 'c': unknown attack 'strog'; did you mean 'strong'?",
    ),
    "claim where nothing is": (
        CLAIM + 'lower = {attack = "strong"}\nwhere = {strategy = ["krum", "kum"]}\n',
        "claim 'c': unknown strategy 'kum'; did you mean 'krum'?",
    ),
    "claim where it compares": (
        CLAIM + 'lower = {attack = "strong"}\nwhere = {attack = "strong"}\n',
        "claim 'c': 'where' and 'lower' both name 'attack'",
    ),
    "claim that compares unlike things": (
        CLAIM + 'lower = {attack = "strong"}\nthan = {strategy = "krum"}\n',
        "claim 'c': 'than' names 'strategy', 'lower' does not",
    ),
    "a paper's table with another column": (
        GOOD + '[[paper]]\nattack = "strong"\naccuracy = {krum = 0.1, kum = 0.2}\n',
        "paper: unknown strategy 'kum'; did you mean 'krum'?",
    ),
    "unknown key": (GOOD + "[extra]\n", "extra: Extra inputs are not permitted"),
    "no cross": ('title = "t"', "cross: Field required"),
    "not TOML": ("title = ", "Invalid value"),
    "unknown option": (
        GOOD.replace("rounds = 2", "round = 2"),
        "unknown option 'round'; did you mean 'rounds'?",
    ),
    "unknown rule": (GOOD.replace('"median"', '"medan"'), "unknown strategy 'medan'; did you mean 'median'?"),
    "impossible": (GOOD.replace("byzantine = 2", "byzantine = 4"), "Krum needs n > 2f + 2, got n=9, f=4"),
    "empty axis": (GOOD.replace("seed = [1, 2]", "seed = []"), "cross: seed has no values"),
    "twice": (GOOD.replace("seed = [1, 2]", "seed = [1, 1]"), "cross: seed has two values labelled '1'"),
    "rows": ('rows = "attak"\n' + GOOD, "rows: unknown axis 'attak'; did you mean 'attack'?"),
    "exclude without why": (GOOD + '[[exclude]]\nattack = "strong"\n', "has no 'why'"),
    "exclude what is not there": (
        GOOD + '[[exclude]]\nattack = "strog"\nwhy = "x"\n',
        "exclude: unknown attack 'strog'; did you mean 'strong'?",
    ),
    "paper without a number": (GOOD + '[[paper]]\nattack = "strong"\n', "has no 'accuracy'"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_named(case, tmp_path):
    text, expected = MISTAKES[case]
    with pytest.raises(RecipeError) as raised:
        load_plan(recipe(tmp_path, text))
    assert expected in str(raised.value)
    assert all(line.startswith(str(tmp_path)) for line in str(raised.value).splitlines())


def test_all_mistakes_are_named_at_once(tmp_path):
    text = GOOD.replace('"median"', '"medan"').replace("labelflip", "labelfip").replace("[1, 2]", "[1, 1]")
    with pytest.raises(RecipeError) as raised:
        load_plan(recipe(tmp_path, text))
    for expected in ("medan", "labelfip", "two values"):
        assert expected in str(raised.value)


def test_there_must_be_a_recipe_and_a_quick_scale(tmp_path):
    with pytest.raises(RecipeError, match="no recipe"):
        find_recipes(tmp_path / "none")
    with pytest.raises(RecipeError, match="no quick scale"):
        load_plan(recipe(tmp_path, GOOD[: GOOD.index("[quick]")]), "quick")
    plan = load_plan(recipe(tmp_path, GOOD))
    with pytest.raises(RecipeError, match=r"unknown axis 'atack'; did you mean 'attack'"):
        select(plan.cells, plan.axes, ["atack=alie"])
    with pytest.raises(RecipeError, match="unknown attack 'alie'"):
        select(plan.cells, plan.axes, ["attack=alie"])


@pytest.mark.parametrize("path", find_recipes(ROOT / "recipes"), ids=lambda p: p.stem)
@pytest.mark.parametrize("scale", ["full", "quick"])
def test_our_own_recipes_load(path, scale):
    plan = load_plan(path, scale)
    assert plan.cells
    if scale == "quick":
        assert plan.note


@pytest.mark.parametrize("name", [".hidden", "two..", "aux", "a:b", "n" * 220])
def test_a_recipes_file_gives_its_runs_a_name_that_can_be_a_folder(name, tmp_path):
    path = tmp_path / f"{name}.toml"
    path.write_text(GOOD)
    with pytest.raises(RecipeError, match="the recipe's file gives its runs their name: "):
        load_plan(path)
