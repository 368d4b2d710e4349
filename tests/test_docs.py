"""The examples of docs/extending.md are those of examples/plugin; what pages name exists."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PLUGIN = ROOT / "examples" / "plugin"


@pytest.fixture(scope="module")
def architecture():
    spec = importlib.util.spec_from_file_location("architecture", DOCS / "architecture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_the_package_that_is_tested():
    """See tests/plugins/test_package.py."""
    page = (DOCS / "extending.md").read_text()
    shown = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    files = [path.read_text() for path in PLUGIN.rglob("*.py") if path.name != "__init__.py"]
    assert sorted(shown) == sorted(files)
    (entry_points,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    for line in filter(None, entry_points.splitlines()):
        assert line in (PLUGIN / "pyproject.toml").read_text()


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
