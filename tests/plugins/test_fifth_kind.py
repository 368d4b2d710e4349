"""A kind of upload from elsewhere: one file, which every engine, attack and rule works with."""

import sys
from pathlib import Path

import pytest

from byzflower.server.config.tasks import make_config
from byzflower.server.engines.simulation import simulate
from byzflower.uploads import UPLOADS

SIGNS = Path(__file__).parent / "signs"
OPTIONS = {
    "imports": "sign_uploads",
    "upload": "signs",
    "model": "mlp",
    "clients": 10,
    "byzantine": 3,
    "rounds": 12,
    "max_samples": 600,
}


@pytest.fixture(autouse=True)
def _on_the_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(SIGNS), prepend=":")  # of processes that are started
    monkeypatch.syspath_prepend(str(SIGNS))
    yield
    if "signs" in UPLOADS:
        UPLOADS.unregister("signs")
    sys.modules.pop("sign_uploads", None)


def trained(folder, **options):
    result = simulate(make_config({**OPTIONS, **options, "out": str(folder)})).result
    assert result["quarantined"] == 0
    return result


def test_it_is_one_short_file():
    assert len((SIGNS / "sign_uploads.py").read_text().splitlines()) < 120


@pytest.mark.parametrize("attack", ["none", "labelflip", "bitflip", "ipm", "alie", "optimalipm"])
def test_models_learn_from_signs_under_attack(attack, tmp_path):
    result = trained(tmp_path, strategy="median", attack=attack, engine="inline")
    assert result["accuracy"] > 0.5
    sent = result["history"][1]
    assert sent["bytes_up"] < sent["bytes_down"] / 31


@pytest.mark.parametrize("strategy", ["multikrum", "fedavg", "geometricmedian"])
def test_rules_read_them(strategy, tmp_path):
    assert trained(tmp_path, strategy=strategy, attack="labelflip", engine="inline")["accuracy"] > 0.5


@pytest.mark.ray
def test_on_ray_the_bits_are_the_same(tmp_path):
    options = {"strategy": "median", "attack": "ipm", "rounds": 3}
    inline = trained(tmp_path / "inline", **options, engine="inline", nodes=3)
    assert trained(tmp_path / "ray", **options, engine="ray", nodes=2)["model"] == inline["model"]
