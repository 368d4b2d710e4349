"""The examples of docs/extending.md work as printed, in a whole run."""

import re
from pathlib import Path

import pytest

from byzflower.attacks import ATTACKS
from byzflower.server.config.classification import RunConfig
from byzflower.server.engines.simulation import simulate
from byzflower.strategies import STRATEGIES

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def extended():
    strategies, attacks = dict(STRATEGIES), dict(ATTACKS)
    names: dict[str, object] = {"__name__": "extension"}
    for block in re.findall(r"```python\n(.*?)```", (DOCS / "extending.md").read_text(), re.DOTALL):
        exec(block, names)
    yield names
    for registry, before in ((STRATEGIES, strategies), (ATTACKS, attacks)):
        registry.clear()
        registry.update(before)


def test_a_new_rule_and_a_new_attack_are_options_like_all_others(extended, tmp_path):
    options = {"strategy": "clippedmean", "strategy_options": "limit=0.5", "attack": "opposite"}
    small = {"rounds": 2, "clients": 6, "byzantine": 1, "model": "mlp", "engine": "inline", "batches": 1}
    outcome = simulate(RunConfig.make({**options, **small, "out": str(tmp_path)}))
    assert outcome.result["rounds"] == 2
    assert outcome.result["quarantined"] == 0


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda p: p.stem)
def test_links_and_pictures_lead_somewhere(page):
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target
