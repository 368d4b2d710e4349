"""Examples of docs/extending.md work as printed; what pages name exists; pictures are up to date."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

from byzflower.attacks import ATTACKS
from byzflower.server.config.classification import RunConfig
from byzflower.server.engines.simulation import simulate
from byzflower.strategies import STRATEGIES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def architecture():
    spec = importlib.util.spec_from_file_location("architecture", DOCS / "architecture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


def test_the_picture_of_the_imports_is_what_the_script_draws_now(architecture):
    drawn = architecture.draw()
    assert architecture.PICTURE.read_text(encoding="utf-8") == drawn, "run python docs/architecture.py"


def test_the_layers_are_all_folders_of_the_package(architecture):
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    folders = {name.split(".")[1] for name in settings["setuptools"]["packages"] if "." in name}
    layers = [folder for layer in architecture.layers() for folder in layer]
    assert sorted(layers) == sorted(folders)
    assert {name.split(".")[1] for name in settings["mypy"]["packages"]} == folders
    page = (DOCS / "architecture.md").read_text()
    assert all(f"`{folder}/`" in page for folder in folders)


def test_imports_point_down_and_are_counted(architecture):
    depth = {folder: i for i, layer in enumerate(architecture.layers()) for folder in layer}
    counts = architecture.imports([*depth])
    assert all(depth[source] < depth[target] for source, target in counts)
    using = "byzflower.uploads"
    files = [path for path in (ROOT / "strategies").rglob("*.py") if f"from {using}" in path.read_text()]
    assert counts["strategies", "uploads"] == len(files)


@pytest.mark.parametrize("page", ["architecture", "contributing", "reliability", "threat-model"])
def test_files_and_tests_that_are_named_exist(page):
    text = (DOCS / f"{page}.md").read_text()
    for path, test in re.findall(r"`([\w./-]+\.py)(?:::(\w+))?`", text):
        place = ROOT / path
        assert place.is_file() or not (ROOT / path.split("/")[0]).is_dir(), path
        assert not test or f"def {test}(" in place.read_text(), f"{path}::{test}"


def test_every_promise_names_a_test():
    rows = [line for line in (DOCS / "reliability.md").read_text().splitlines() if line.startswith("| ")]
    promises = [row for row in rows if not row.startswith("| promise")]
    assert len(promises) > 30
    assert all("::test_" in promise for promise in promises)
