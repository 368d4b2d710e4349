"""Packages export lazily what they always exported, in whatever order it is asked for."""

import importlib
import inspect
import subprocess
import sys
from types import ModuleType

import pytest

PACKAGES = [
    f"byzflower.{name}"
    for name in (
        *("attacks", "attacks.items", "clients", "datasets", "models", "server"),
        *("strategies", "strategies.items", "strategies.pre_aggregation"),
    )
]


@pytest.mark.parametrize("name", PACKAGES)
def test_all_that_is_exported_is_there_and_listed(name):
    package = importlib.import_module(name)
    assert len(package.__all__) == len(set(package.__all__))
    for exported in package.__all__:
        assert not isinstance(getattr(package, exported), ModuleType), exported
    assert set(package.__all__) <= set(dir(package))
    assert inspect.getdoc(package)


def test_what_is_not_exported_is_an_ordinary_error():
    import byzflower.strategies

    with pytest.raises(AttributeError, match=r"module 'byzflower.strategies' has no attribute 'Kruml'"):
        byzflower.strategies.Kruml  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Kruml'"):
        exec("from byzflower.strategies import Kruml")


@pytest.mark.parametrize(
    "before",
    [
        "import byzflower.strategies.krum",
        "from byzflower.strategies.krum import Krum",
        "from byzflower.strategies import Krum",
        "from byzflower.strategies import multi_krum, krum",
        "import byzflower.strategies as s; s.STRATEGIES['krum']",
    ],
)
def test_a_function_with_the_name_of_its_module_is_the_function(before):
    code = f"{before}\nfrom byzflower.strategies import krum\nassert callable(krum), krum"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200)
