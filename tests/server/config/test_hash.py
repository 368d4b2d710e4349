"""A run's hash: of what differs from the defaults, so that results are found again by later versions."""

import json
from pathlib import Path

import pytest
from pydantic import Field

from byzflower.clients.settings import ClientSettings
from byzflower.server.config.base import FORMAT, digest_of
from byzflower.server.config.classification import RunConfig
from byzflower.server.config.recommendation import RecommendationConfig
from byzflower.server.config.tasks import TASKS, make_config

pytestmark = pytest.mark.compat

# If one of these changes, nobody's finished runs are found any more: `FORMAT` says when that is meant to be.
HASHES = {
    "9aef2cd7dd": {},
    "fe3f5fb4ca": {"strategy": "median", "attack": "alie"},
    "bad132a6a6": {"lr": 0.05, "strategy_options": "num_byzantine=3", "pre": "nnm", "max_client_weight": 0.5},
    "c7d8a30e20": {"task": "recommendation"},
    "b9cb77333f": {"task": "recommendation", "strategy": "krum", "rho": 0.05, "byzantine": 4},
}


@pytest.mark.parametrize("expected", HASHES)
def test_hashes_stay_what_they_are(expected):
    assert make_config(HASHES[expected]).config_hash() == expected


@pytest.mark.parametrize("task", TASKS)
def test_a_default_that_changes_needs_another_format(task):
    """With a new `FORMAT`, add the file of the new defaults; new options go into the file that is there."""
    path = Path(__file__).parent / f"defaults-{FORMAT}.json"
    now = {name: field.default for name, field in TASKS[task].model_fields.items()}
    assert json.loads(path.read_text())[task] == json.loads(json.dumps(now))


def test_what_is_said_although_it_is_the_default_changes_nothing():
    assert (
        RunConfig.make({"lr": 0.1, "strategy_options": "", "rounds": 15}).config_hash()
        == RunConfig().config_hash()
    )


def test_a_new_option_with_a_default_changes_no_hash():
    class Later(RunConfig):
        novelty: float = Field(0.5, description="of a later version")

    class LaterRecommendation(RecommendationConfig):
        novelty: tuple[int, ...] = Field((1, 2), description="of a later version")

    for later, now in ((Later, RunConfig), (LaterRecommendation, RecommendationConfig)):
        assert later().config_hash() == now().config_hash()
        assert later(seed=3, attack="none").config_hash() == now(seed=3, attack="none").config_hash()
    assert Later(novelty=0.6).config_hash() != RunConfig().config_hash()


def test_the_format_and_the_task_are_part_of_it():
    own = {"format": FORMAT, "task": "classification", "options": {}}
    assert RunConfig().config_hash() == digest_of(own)
    for other in ({"format": FORMAT + 1}, {"task": "recommendation"}):
        assert digest_of({**own, **other}) != RunConfig().config_hash()


def test_where_names_come_from_is_no_part_of_it():
    assert RunConfig(imports=("json",)).config_hash() == RunConfig().config_hash()
    assert ClientSettings(imports="json, ast").imports == ("json", "ast")
