"""The examples of docs/extending.md are those of examples/plugin; links lead somewhere."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PLUGIN = Path(__file__).parents[1] / "examples" / "plugin"


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
