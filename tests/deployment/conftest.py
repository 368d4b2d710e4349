"""What tests of deployments need."""

import sys
from pathlib import Path

import pytest

for folder in ("deploy", "benchmarks"):
    sys.path.insert(0, str(Path(__file__).parents[2] / folder))
sys.path.insert(0, str(Path(__file__).parent / "wire-app"))


@pytest.fixture
def deployment(tmp_path):
    from processes import ended_deployment

    with ended_deployment(tmp_path / "deployment") as running:
        yield running
