"""Every attack, on every task and kind of upload: it does something, or is refused by name."""

import numpy as np
import pytest

from byzflower.attacks import ATTACKS, Camouflage, DataAttack
from byzflower.attacks.items import ITEM_ATTACKS
from byzflower.server.config.checks import ConfigError
from byzflower.server.config.tasks import make_config
from byzflower.server.engines.simulation import simulate

COMMON = {"rounds": 2, "engine": "inline", "nodes": 2, "seed": 3, "eval_every": 2}
CLASSIFIER = {
    **COMMON,
    "clients": 10,
    "byzantine": 2,
    "max_samples": 80,
    "model": "mlp",
    "model_options": "hidden=4",
    "batches": 1,
}
USERS = {
    **COMMON,
    "dataset": "synthetic-small",
    "model_options": "dim=4",
    "clients": 10,
    "byzantine": 2,
    "strategy": "arfrs",
    "lr": 0.02,
}
RUNS = {
    "weights": {**CLASSIFIER, "strategy": "median"},
    "gradient": {**CLASSIFIER, "strategy": "median", "upload": "gradient"},
    "topk": {**CLASSIFIER, "strategy": "safesparse", "upload": "topk", "pack_size": 8},
    "Adam's moments": {**CLASSIFIER, "strategy": "arfrs", "lr": 0.01},
    "AdaGrad's moments": {**CLASSIFIER, "strategy": "agrfrs", "lr": 0.01},
    "stateless recommender FISM": {**USERS, "model": "fism"},
    "stateless recommender FMF": {**USERS, "model": "fmf"},
}
PERSONAL = {
    **COMMON,
    "task": "recommendation",
    "dataset": "synthetic-small",
    "byzantine": 2,
    "candidates": 20,
    "strategy": "mean",
    "lr": 0.1,
    "server_lr": 0.1,
}


def refusal(run, attack):
    """What is said of an attack on a run that cannot have it."""
    recommends = run.startswith("stateless")
    if issubclass(ATTACKS[attack], DataAttack) and recommends:
        return f"attack {attack} needs a data set with labels"
    if ATTACKS[attack] is Camouflage and not (recommends or run == "Adam's moments"):
        return f"attack {attack} needs a strategy that keeps Adam's moments, as arfrs"
    return None


def result(folder, options, attack):
    name = f"{attack}-{len(str(options))}"
    return simulate(make_config({**options, "attack": attack, "name": name, "out": str(folder)})).result


@pytest.fixture(scope="module")
def benign(tmp_path_factory):
    """The model that a run learns without an attack, of each run that is asked for."""
    folder, known = tmp_path_factory.mktemp("benign"), {}

    def model(options):
        key = str(options)
        if key not in known:
            known[key] = result(folder, options, "none")["model"]
        return known[key]

    return model


# Runs that differ from another in little but the optimizer or the model: one attack of each kind will do.
ALIKE = {"AdaGrad's moments", "stateless recommender FMF"}
CASES = [
    (run, attack)
    for run in RUNS
    for attack in (("alie", "bitflip", "camouflage", "labelflip", "pgd") if run in ALIKE else sorted(ATTACKS))
]


@pytest.mark.parametrize(("run", "attack"), CASES)
def test_it_acts_or_is_refused(run, attack, benign, tmp_path):
    options, said = RUNS[run], refusal(run, attack)
    if said is not None:
        with pytest.raises(ConfigError, match=f"^{said}$"):
            make_config({**options, "attack": attack})
        return
    attacked = result(tmp_path, options, attack)
    assert attacked["model"] != benign(options)
    # Only what is not finite is malformed: everything else gets to the rule.
    assert attacked["quarantined"] == (4 if attack in ("nan", "inf") else 0)
    assert attacked["skipped"] == 0


@pytest.mark.parametrize("attack", sorted(ITEM_ATTACKS))
@pytest.mark.parametrize("model", ["mf", "gnn"])
def test_it_acts_on_users_with_embeddings(model, attack, benign, tmp_path):
    options = {**PERSONAL, "model": model}
    attacked = result(tmp_path, options, attack)
    assert attacked["model"] != benign(options)
    assert attacked["quarantined"] == 0


@pytest.mark.parametrize("attack", sorted(set(ATTACKS) - set(ITEM_ATTACKS)))
def test_attacks_on_classifiers_are_unknown_there(attack):
    with pytest.raises(ConfigError, match=f"unknown attack '{attack}'"):
        make_config({**PERSONAL, "attack": attack})


@pytest.mark.parametrize("attack", sorted(set(ITEM_ATTACKS) - set(ATTACKS)))
def test_attacks_on_items_are_unknown_elsewhere(attack):
    with pytest.raises(ConfigError, match=f"unknown attack '{attack}'"):
        make_config({**CLASSIFIER, "attack": attack})


@pytest.mark.parametrize("attack", ["optimalalie", "optimalipm"])
def test_who_tries_the_servers_rule_must_know_what_it_looks_at(attack):
    options = {**RUNS["Adam's moments"], "strategy_options": "inspect=parameters"}
    with pytest.raises(
        ConfigError, match=r"attack-options: .* a strategy of byzflower that looks at gradients"
    ):
        make_config({**options, "attack": attack})


@pytest.mark.parametrize("options", [RUNS["weights"], RUNS["stateless recommender FISM"], PERSONAL])
def test_an_interrupted_run_remembers_what_its_attackers_do(options, tmp_path):
    from byzflower.clients.app import app
    from byzflower.server.engines.inline import InlineGrid
    from byzflower.server.federation import federation

    class After:
        left = 2

        def is_set(self):
            self.left -= 1
            return self.left < 0

    options = {**options, "attack": "neurotoxin", "attack_options": "masked=0.5", "rounds": 4}
    whole = result(tmp_path, options, "neurotoxin")
    for nodes in (2, 3):
        config = make_config({**options, "nodes": nodes, "name": f"parts-{nodes}", "out": str(tmp_path)})
        assert federation(config, nodes).run(InlineGrid(app, nodes), stop=After()).interrupted
        resumed = federation(config, nodes).run(InlineGrid(app, nodes)).result
        assert resumed["model"] == whole["model"]
        np.testing.assert_equal(resumed["history"][-1], whole["history"][-1])
