"""A federated recommender in Flower: the same numbers wherever the users are, and what the options mean."""

import json

import numpy as np
import pytest
import torch

from byzflower.attacks.items import ITEM_ATTACKS
from byzflower.clients.recommender.client import _profiles
from byzflower.clients.recommender.settings import leave_one_out
from byzflower.experiments.report.vulnerability import plot_popularity, vulnerability
from byzflower.server.config.checks import ConfigError
from byzflower.server.config.tasks import config_from_flower, make_config
from byzflower.server.engines.simulation import simulate

pytestmark = pytest.mark.compat

JOB = {
    "task": "recommendation",
    "dataset": "synthetic-small",
    "byzantine": 3,
    "candidates": 20,
    "lr": 0.1,
    "server_lr": 0.1,
    "rounds": 3,
    "eval_every": 3,
    "engine": "inline",
}


def run(folder, **options):
    outcome = simulate(make_config({**JOB, "nodes": 1, **options, "out": str(folder)}))
    return outcome.result


def one_each(folder, **options):
    return simulate(make_config({**JOB, "clients_per_node": 1, **options, "out": str(folder)})).result


@pytest.mark.parametrize("strategy", ["mean", "median", "krum", "rfa", "centeredclipping"])
def test_a_user_per_node_and_cohorts_give_the_same_bits(strategy, tmp_path):
    reference = run(tmp_path / "all", strategy=strategy)
    assert one_each(tmp_path / "one", strategy=strategy) == reference
    assert run(tmp_path / "three", strategy=strategy, nodes=3) == reference


@pytest.mark.parametrize("attack", ["spattack-o-s", "fedattack", "none"])
@pytest.mark.parametrize(
    "options", [{"model": "gnn"}, {"laplace": 0.01, "clip_upload": 0.5}], ids=["gnn", "private"]
)
def test_it_is_so_for_any_model_privacy_and_attack(attack, options, tmp_path):
    reference = run(tmp_path / "all", attack=attack, rounds=2, **options)
    assert one_each(tmp_path / "one", attack=attack, rounds=2, **options) == reference


@pytest.mark.ray
@pytest.mark.parametrize("strategy", ["mean", "median"])
def test_ray_gives_the_same_bits(strategy, tmp_path):
    reference = run(tmp_path / "inline", strategy=strategy)
    assert one_each(tmp_path / "one", strategy=strategy) == reference
    assert run(tmp_path / "ray", strategy=strategy, engine="ray", num_cpus=0.5, nodes=2) == reference


@pytest.mark.parametrize("attack", sorted(ITEM_ATTACKS))
def test_every_attack_uploads_something_once_it_has_begun(attack, tmp_path):
    options = {"attack": attack, "attack_options": "start_round=2", "strategy": "mean", "rounds": 2}
    result = run(tmp_path, **options)
    rows = [record["info"]["rows"] for record in result["history"][1:]]
    assert rows[1] > rows[0]
    clean = run(tmp_path / "clean", attack="none", strategy="mean", rounds=1)
    assert rows[0] == clean["history"][1]["info"]["rows"]


def test_a_stopped_run_goes_on_with_the_same_result(tmp_path):
    import threading

    class After(threading.Event):
        def __init__(self, rounds):
            super().__init__()
            self.left = rounds

        def is_set(self):
            self.left -= 1
            return self.left < 0

    from byzflower.clients.app import app
    from byzflower.server.engines.inline import InlineGrid
    from byzflower.server.federation import federation

    whole = run(tmp_path / "whole", attack="spattack-o-s", server_optimizer="adam", rounds=4)
    config = make_config(
        {
            **JOB,
            "attack": "spattack-o-s",
            "server_optimizer": "adam",
            "rounds": 4,
            "nodes": 2,
            "out": str(tmp_path),
        }
    )
    assert federation(config, 2).run(InlineGrid(app, 2), stop=After(2)).interrupted
    assert federation(config, 2).run(InlineGrid(app, 2)).result == whole


def test_what_is_learned_is_lost_to_spattack_and_kept_without(tmp_path):
    options = {"dataset": "synthetic", "rounds": 60, "eval_every": 60, "strategy": "mean", "byzantine": 9}
    clean, attacked = (
        run(tmp_path / attack, attack=attack, **options)["HR@10"] for attack in ("none", "spattack-o-d")
    )
    assert clean > attacked + 0.1


def items_after(folder, **options):
    config = make_config({**JOB, "nodes": 1, **options, "out": str(folder)})
    outcome = simulate(config)
    initial = config.make_model().arrays(config.feedback.train.num_items, config.seed)
    saved = torch.load(outcome.recorder.folder / "model.pt", weights_only=True)
    return initial["items"], saved["items"].numpy()


def test_spattack_stops_a_mean_where_it_began(tmp_path):
    start, clean = items_after(tmp_path, attack="none", strategy="mean")
    _, attacked = items_after(tmp_path, attack="spattack-o-d", strategy="mean")
    assert np.abs(attacked - start).max() < 1e-6 * np.abs(clean - start).max()


def test_negatives_are_items_that_the_user_never_touched():
    split = leave_one_out("synthetic-small", "")
    users = tuple(range(split.train.num_users))
    profiles = _profiles("synthetic-small", "", 1, users)
    for user in users:
        own = slice(*profiles.splits[user : user + 2].tolist())
        others = np.setdiff1d(profiles.items[own], split.train.of(user))
        assert 0 < len(others) <= len(split.train.of(user))
        assert not np.isin(split.test.of(user), others).any()


def test_a_table_that_never_moved_ranks_by_chance(tmp_path):
    # Users see the same random table: one seed says little, the mean of some is 10 of the 1 + 100 candidates.
    options = {"dataset": "synthetic", "candidates": 100, "rounds": 20, "eval_every": 20, "lr": 0.01}
    scores = [
        run(tmp_path, attack="spattack-o-d", strategy="mean", seed=seed, **options)["HR@10"]
        for seed in range(1, 9)
    ]
    assert abs(np.mean(scores) - 10 / 101) < 4 * np.std(scores, ddof=1) / np.sqrt(len(scores))
    assert np.std(scores) < 0.05


def test_the_server_never_sees_a_user(tmp_path):
    from byzflower.clients.app import app
    from byzflower.clients.recommender.client import USERS
    from byzflower.server.engines.inline import InlineGrid
    from byzflower.server.federation import federation

    seen = []

    class Listening(InlineGrid):
        def send_and_receive(self, messages, *, timeout=None):
            replies = list(super().send_and_receive(messages, timeout=timeout))
            seen.extend(name for reply in replies for name in reply.content)
            return replies

    # Only checkpoints of a simulation hold what users keep to themselves.
    config = make_config({**JOB, "engine": "deployment", "out": str(tmp_path)})
    federation(config, config.clients).run(Listening(app, config.clients))
    assert set(seen) == {"arrays", "metrics"}
    assert USERS not in seen


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"attack": "spattack"}, "unknown attack 'spattack'; did you mean 'spattack-"),
        ({"strategy": "multikrom"}, "did you mean 'multikrum'"),
        ({"dataset": "ml"}, "unknown dataset 'ml'"),
        ({"strategy": "norm", "strategy_options": "max_norm=0"}, "max_norm must be positive"),
        ({"attack": "lie", "attack_options": "zz=1"}, "unknown parameter 'zz'"),
        ({"model_options": "dim=0"}, "dim and std must be positive"),
        ({"partition": "iid"}, "unknown option 'partition'"),
        ({"rho": 1.0}, "rho: Input should be less than 1"),
        ({"task": "recommend"}, "unknown task 'recommend'; did you mean 'recommendation'"),
    ],
)
def test_mistakes_name_the_option(options, text):
    with pytest.raises(ConfigError, match=text.replace("(", r"\(")):
        make_config({**JOB, **options})


def test_flowers_run_config_lists_the_options_of_all_tasks():
    run_config = {"task": "recommendation", "dataset": "synthetic", "attack": "none", "strategy": "norm"}
    config = config_from_flower({**run_config, "model": "mf", "partition": "iid", "eval-every": 2})
    assert (config.strategy, config.eval_every) == ("norm", 2)
    assert config_from_flower({"rho": 0.1, "rounds": 3}).rounds == 3


def test_how_many_attackers_a_share_makes(data):
    counts = {
        "ml-100k-split": {0.01: 9, 0.03: 29, 0.05: 49, 0.15: 166},
        "steam-split": {0.01: 37, 0.03: 116, 0.05: 197, 0.1: 417, 0.15: 662},
    }
    for dataset, known in counts.items():
        for rho, count in known.items():
            options = {**JOB, "dataset": dataset, "data": str(data), "rho": rho, "byzantine": None}
            assert make_config(options).num_byzantine() == count


def test_settings_travel_as_json():
    settings = make_config(JOB).client_settings()
    assert type(settings)(**json.loads(json.dumps(settings.model_dump()))) == settings


# -- vulnerability ------------------------------------------------------------------------------------------


def test_lost_items_are_counted_and_predicted(tmp_path):
    degrees = np.array([0, 1, 2, 4, 9, 10, 11, 100])
    report = vulnerability(degrees, num_byzantine=10)
    assert (report.threshold, report.measured) == (10, 5 / 8)
    assert vulnerability(degrees, 10, breakdown=0.25).threshold == 30
    assert vulnerability(degrees, 10, breakdown=0.25).measured == 7 / 8
    logs = np.log(degrees[1:])
    assert report.beta == pytest.approx(1 + 7 / logs.sum())
    assert report.predicted == pytest.approx(1 - 10 ** (1 - report.beta))
    assert plot_popularity(report, tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_the_fit_finds_the_exponent_it_was_made_with():
    uniform = np.random.default_rng(0).random(100_000)
    degrees = np.floor(1000 * uniform ** (-1 / 1.2)).astype(np.int64)
    # On x >= 1000 the estimate needs degrees in units of 1000, which the fit does not round.
    assert vulnerability(degrees, 3).beta == pytest.approx(1 + 1 / (np.log(1000) + 1 / 1.2), rel=0.01)
    with pytest.raises(ValueError, match="breakdown must be in"):
        vulnerability(degrees, 3, 1.0)
    with pytest.raises(ValueError, match="no power law"):
        vulnerability(np.array([0, 1, 1]), 3)
