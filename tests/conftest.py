"""Shared fixtures: a private cache, data if it is there, and hand-made Flower replies."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples every time, so that a change is what fails; `--hypothesis-profile search` looks for more.
settings.register_profile("same", derandomize=True)
settings.register_profile("search", max_examples=400)
settings.load_profile("same")

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

# Helpers are imported by name; the repository root must not be importable (its `datasets` and
# `server` would shadow other people's), only this folder.
sys.path.insert(0, str(Path(__file__).parent / "support"))

_DEFAULT_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    if "BYZFLOWER_CACHE" not in os.environ:
        os.environ["BYZFLOWER_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder with the public data sets, or skip."""
    folder = Path(os.environ.get("BYZFLOWER_DATA") or _DEFAULT_DATA)
    if not folder.is_dir():
        pytest.skip("public data sets not found: set BYZFLOWER_DATA to their folder")
    return folder
