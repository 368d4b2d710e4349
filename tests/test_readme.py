"""What README.md shows, run."""

import re
from pathlib import Path

import pytest
from flwr.serverapp.strategy import Strategy

pytestmark = pytest.mark.compat

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_python_examples_run_one_after_the_other():
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(block, names)
    assert isinstance(names["strategy"], Strategy)
    assert names["result"].gradient.shape == (1000,)


@pytest.mark.parametrize("target", re.findall(r"\]\(((?!http)[^)]+)\)", README))
def test_links_lead_somewhere(target):
    assert (Path(__file__).parents[1] / target).exists()
