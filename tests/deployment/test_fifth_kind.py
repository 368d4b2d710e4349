"""A kind of upload from elsewhere (tests/plugins/signs) on real nodes."""

import json
import os
import sys
from pathlib import Path

import pytest
from processes import REPOSITORY, ended_deployment

from byzflower.server.config.tasks import make_config
from byzflower.server.engines.simulation import simulate
from byzflower.uploads import UPLOADS

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(400)]

SIGNS = str(Path(__file__).parents[1] / "plugins" / "signs")
OPTIONS = {
    "imports": "sign_uploads",
    "upload": "signs",
    "strategy": "median",
    "attack": "bitflip",
    "model": "mlp",
    "clients": 3,
    "byzantine": 1,
    "rounds": 2,
    "max_samples": 600,
}


def test_one_file_is_enough_for_them_too(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(SIGNS)
    path = os.pathsep.join(filter(None, (SIGNS, os.environ.get("PYTHONPATH"))))
    inline = {**OPTIONS, "engine": "inline", "out": str(tmp_path / "inline")}
    real = {**OPTIONS, "engine": "deployment", "out": str(tmp_path / "real")}
    try:
        simulated = simulate(make_config(inline)).result
        with ended_deployment(tmp_path / "deployment", environment={"PYTHONPATH": path}) as deployment:
            deployment.start_nodes([{}] * 3)
            deployment.run(REPOSITORY, {k.replace("_", "-"): v for k, v in real.items()}, timeout=300)
        result = json.loads((make_config(real).folder() / "result.json").read_text())
    finally:
        UPLOADS.unregister("signs")
        sys.modules.pop("sign_uploads")
    assert result["quarantined"] == 0
    assert result["model"] == simulated["model"]
