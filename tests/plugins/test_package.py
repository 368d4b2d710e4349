"""Other people's package, examples/plugin: built, installed and used by entry points, or by --import."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "examples" / "plugin"
QUICK = ["--clients", "6", "--byzantine", "1", "--rounds", "2", "--batches", "1", "--engine", "inline"]
RECIPE = """
title = "Somebody's rule against somebody's attacks"
{imports}
[base]
model = "linear"
clients = 6
byzantine = 1
rounds = 1
batches = 1
[cross]
attack = ["opposite", "forget"]
strategy = ["clippedmean"]
"""


def environment(*folders):
    path = os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "COLUMNS": "200", "NO_COLOR": "1"}


def call(arguments, cwd, *folders):
    """A command line in a process of its own, with folders on its path."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "run_sim.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        cwd=cwd,
        env=environment(*folders),
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder into which the package is installed from its wheel."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(PLUGIN, folder / "source")
    (folder / "source" / "lab.py").unlink()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, folder / "source"]
    subprocess.run([*pip, *build], check=True, capture_output=True)
    (wheel,) = folder.glob("my_rules-*.whl")
    subprocess.run(
        [*pip, "install", "--no-deps", "--target", folder / "site", wheel], check=True, capture_output=True
    )
    return folder / "site"


def test_installed_names_are_listed_and_run(installed, tmp_path):
    code, said = call(["--list"], tmp_path, installed)
    assert code == 0
    assert re.search(r"clippedmean +Mean of the uploads, none longer than a limit\.", said)
    assert re.search(r"opposite +All Byzantine clients upload the opposite", said)
    options = ["--strategy", "clippedmean,median", "--strategy-options", "", "--attack", "opposite"]
    code, said = call([*QUICK, *options, "--model", "linear", "--out", "runs"], tmp_path, installed)
    assert code == 0, said
    results = [json.loads(path.read_text()) for path in tmp_path.rglob("result.json")]
    assert [result["rounds"] for result in results] == [2, 2]
    code, said = call([*QUICK, "--strategy", "clippedmaen"], tmp_path, installed)
    assert code == 2
    assert "did you mean 'clippedmean'" in said
    code, said = call(
        [*QUICK, "--strategy", "clippedmean", "--strategy-options", "limt=1"], tmp_path, installed
    )
    assert code == 2
    assert "unknown parameter 'limt'; did you mean 'limit'" in said


@pytest.mark.slow
def test_installed_names_work_in_grids_and_their_workers(installed, tmp_path):
    (tmp_path / "small.toml").write_text(RECIPE.format(imports=""))
    code, said = call(["grid", "small.toml", "--jobs", "2"], tmp_path, installed)
    assert code == 0, said
    assert len(list(tmp_path.rglob("result.json"))) == 2
    code, said = call(["report", "runs/small/full"], tmp_path, installed)
    assert code == 0, said
    assert "2 of 2 runs" in said


@pytest.mark.slow
def test_installed_attacks_belong_to_the_red_team(installed, tmp_path):
    (tmp_path / "theirs.py").write_text(
        "from my_rules.rules import ClippedMean\n"
        "strategy = ClippedMean(fraction_evaluate=0.0, min_available_nodes=5, min_train_nodes=5)\n"
    )
    size = ["--clients", "5", "--byzantine", "1", "--rounds", "1", "--model", "linear", "--tolerance", "1"]
    code, said = call(["redteam", "theirs:strategy", *size], tmp_path, installed, tmp_path)
    assert code == 0, said
    assert re.search(r"│ opposite +│ 0\.\d+ +│ withstood", said)
    assert re.search(r"│ forget +│ 0\.\d+ +│ withstood", said)


@pytest.mark.slow
def test_modules_are_imported_by_name_without_an_installation(tmp_path):
    options = ["--strategy", "clippedmean", "--attack", "forget", "--model", "linear"]
    code, said = call([*QUICK, *options], tmp_path, PLUGIN)
    assert code == 2
    assert "unknown strategy 'clippedmean'" in said
    code, said = call([*QUICK, *options, "--import", "lab"], tmp_path, PLUGIN)
    assert code == 0, said
    (folder,) = (path.parent for path in tmp_path.rglob("result.json"))
    assert 'imports = [\n    "lab",\n]' in (folder / "config.toml").read_text()
    code, said = call(["--config", folder / "config.toml", "--out", "again"], tmp_path, PLUGIN)
    assert code == 0, said
    (again,) = (tmp_path / "again").rglob("result.json")
    assert again.read_bytes() == (folder / "result.json").read_bytes()
    code, said = call(["report", "runs"], tmp_path, PLUGIN)
    assert code == 0, said


@pytest.mark.slow
@pytest.mark.parametrize("in_recipe", [True, False], ids=["named by the recipe", "named on the command line"])
def test_modules_are_imported_in_grids_and_their_workers(in_recipe, tmp_path):
    (tmp_path / "small.toml").write_text(RECIPE.format(imports='imports = ["lab"]' if in_recipe else ""))
    option = [] if in_recipe else ["--import", "lab"]
    code, said = call(["grid", "small.toml", "--jobs", "2", *option], tmp_path, PLUGIN)
    assert code == 0, said
    assert len(list(tmp_path.rglob("result.json"))) == 2
    code, said = call(["report", "runs/small/full", *option], tmp_path, PLUGIN)
    assert code == 0, said
    assert "2 of 2 runs" in said


def test_a_client_imports_what_the_server_names(tmp_path):
    """As a SuperNode or a Ray actor does, which knows a run by the settings in its messages alone."""
    code = (
        "from byzflower.clients.app import _parse_settings\n"
        "import json, sys\n"
        "assert 'lab' not in sys.modules\n"
        "settings = _parse_settings(json.dumps({'imports': ['lab'], 'attack': 'forget'}))\n"
        "assert type(settings.make_attack()).__name__ == 'Forget'\n"
        "from byzflower.server.config.tasks import config_from_flower\n"
        "config = config_from_flower({'imports': 'lab', 'strategy': 'clippedmean'})\n"
        "assert config.client_settings().imports == ('lab',)\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=environment(PLUGIN), cwd=tmp_path, timeout=200
    )


@pytest.mark.slow
@pytest.mark.ray
def test_modules_are_imported_in_rays_actors(tmp_path):
    options = ["--strategy", "clippedmean", "--attack", "forget", "--model", "linear", "--import", "lab"]
    ray = [*QUICK[:-1], "ray", "--nodes", "2"]
    results = []
    for engine in (ray, QUICK):
        code, said = call([*engine, *options, "--out", engine[-1]], tmp_path, PLUGIN)
        assert code == 0, said
        (path,) = (tmp_path / engine[-1]).rglob("result.json")
        results.append(path.read_bytes())
    assert results[0] == results[1]


@pytest.mark.slow
def test_a_broken_package_is_named_and_costs_its_own_names_alone(tmp_path):
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found\n")
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[byzflower.strategies]\nbrokenrule = broken:Rule\n"
        "[byzflower.attacks]\nbrokenattack = broken:Attack\n"
    )
    text = "of package broken cannot be loaded: ModuleNotFoundError: No module named 'nowhere_to_be_found'"
    code, said = call(["--list"], tmp_path, tmp_path)
    assert code == 0
    assert "multikrum" in said
    assert f"error: strategy 'brokenrule' {text}" in said
    assert f"error: attack 'brokenattack' {text}" in said
    code, said = call([*QUICK, "--strategy", "brokenrule"], tmp_path, tmp_path)
    assert code == 2
    assert f"error: strategy 'brokenrule' {text}" in said
    code, said = call([*QUICK, "--strategy", "median"], tmp_path, tmp_path)
    assert code == 0, said
