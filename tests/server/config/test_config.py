"""Mistakes in a configuration are named before anything runs; a hash stands for what results depend on."""

import math
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byzflower.attacks import ALIE, IPM, Knowledge
from byzflower.clients.recommender.settings import RecommenderSettings
from byzflower.clients.settings import ClientSettings, parse_options
from byzflower.server.config.checks import ConfigError
from byzflower.server.config.classification import RunConfig
from byzflower.server.config.recommendation import RecommendationConfig
from byzflower.server.config.tasks import config_from_flower
from byzflower.strategies import Bucketing, Clip, NearestNeighborMixing

REPOSITORY = Path(__file__).parents[3]
# Another valid value for everything that results depend on.
CHANGES = parse_options(
    "dataset=mnist, model=mlp, clients=30, byzantine=7, byzantine_set=random, attack=alie,"
    "attack_options=eps=3,"
    "partition=shards, alpha=0.7, shards_per_client=3, min_size=2, max_samples=1000, optimizer=adam, lr=0.2,"
    "momentum=0.5, weight_decay=0.001, clip_norm=1.0, epochs=3, batches=4, batch_size=8, local_momentum=0.9,"
    "strategy=krum, strategy_options=weighted=true, rounds=3, upload=gradient, server_lr=0.5,"
    "fraction_train=0.95, eval_every=2, evaluate_clients=true, max_skipped_rounds=5, max_client_weight=0.5,"
    "model_options=hidden=5, lr_decay_rounds=2, lr_decay=0.5, diagnostics=true, balanced_sampling=true,"
    "embed_rounds=3, root_samples=50, pack_size=16, densify=contributors, mask_attack=indexpoisoning,"
    "mask_attack_options=share=0.5, upload_options=ratio=0.1, negatives=3"
) | {"pre": "clip(max_norm=9), nnm"}
# What an option needs besides.
NEEDS = {
    "model_options": {"model": "mlp"},
    "upload_options": {"upload": "topk"},
    "mask_attack": {"upload": "topk"},
    "mask_attack_options": {"upload": "topk", "mask_attack": "indexpoisoning"},
    "densify": {"upload": "topk", "strategy": "median"},
}
# The same for what says only where and how to compute (the seed is in the folder's name, beside the hash).
EXECUTION = parse_options(
    "seed=2, data=/somewhere, engine=inline, nodes=4, clients_per_node=1, num_cpus=2.0, num_gpus=0.5,"
    "ray_address=auto, round_timeout=60.0, max_round_bytes=5, out=elsewhere, name=mine,"
    "identity=node, imports=json"
)


def refused(**options):
    with pytest.raises(ConfigError) as caught:
        RunConfig.make(options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"atack": "ipm"}, "unknown option 'atack'; did you mean 'attack'?"),
        ({"learning_rate": 1}, "unknown option 'learning_rate'"),
        ({"attack": "ipn"}, "unknown attack 'ipn'; did you mean 'ipm'?"),
        ({"attack": "LabelFlipping"}, "unknown attack 'LabelFlipping'; did you mean 'labelflip'?"),
        ({"strategy": "MultiKrum"}, "unknown strategy 'MultiKrum'; did you mean 'multikrum'?"),
        ({"strategy": "trimmed_mean"}, "unknown strategy 'trimmed_mean'; did you mean 'trimmedmean'?"),
        ({"dataset": "minst"}, "unknown dataset 'minst'; did you mean 'mnist'?"),
        ({"dataset": "fashion-mnist"}, "did you mean 'fashion_mnist'?"),
        ({"upload": "logits"}, "unknown upload 'logits'"),
        ({"model": "cmn"}, "unknown model 'cmn'; did you mean 'cnn'?"),
        ({"model": "zzzzzz"}, "unknown model 'zzzzzz' (known: alexnet, cnn,"),
        ({"attack_options": "epps=3"}, "attack-options: unknown parameter 'epps'; did you mean 'eps'?"),
        ({"attack_options": "z=3"}, "attack-options: unknown parameter 'z'"),
        ({"strategy_options": "wieghted=true"}, "unknown parameter 'wieghted'; did you mean 'weighted'?"),
        ({"strategy": "median", "strategy_options": "num_byzantine=3"}, "num_byzantine"),
        ({"strategy_options": "server_lr=2"}, "strategy-options: unknown parameter 'server_lr'"),
        ({"model_options": "norm=group"}, "model-options: CNN has no parameters, got norm"),
        (
            {"model": "mlp", "model_options": "num_classes=3"},
            "model-options: unknown parameter 'num_classes'",
        ),
        (
            {"model": "resnet20", "model_options": "norm=layer"},
            "model-options: norm: Input should be 'batch' or",
        ),
        ({"attack": "none", "attack_options": "eps=3"}, "attack-options: there is nothing to give eps to"),
    ],
)
def test_unknown_names_suggest_the_nearest_one(options, text):
    assert text in refused(**options)


@pytest.mark.parametrize(
    "name", [n for n, f in RunConfig.model_fields.items() if f.annotation in (int, float)]
)
@pytest.mark.parametrize("value", ["many", None, [1], math.nan, -math.inf, -(10**9)])
def test_wrong_numbers_name_the_option(name, value):
    assert refused(**{name: value}).startswith(f"{name.replace('_', '-')}: ")


OUT_OF_RANGE = [
    *(("clients", 0), ("byzantine", 1.5), ("rounds", 0), ("max_client_weight", 2), ("fraction_train", 1.01)),
    *(
        ("alpha", 0),
        ("alpha", math.inf),
        ("lr", 0),
        ("lr", math.inf),
        ("momentum", 1),
        ("local_momentum", 1.0),
    ),
    *(("optimizer", "lbfgs"), ("partition", "label-skew"), ("byzantine_set", "last")),
    *(("max_client_weight", "half"), ("evaluate_clients", "perhaps"), ("engine", "spark"), ("dataset", 5)),
    *(("attack_options", 5), ("attack_options", "eps"), ("strategy_options", "2x=3")),
]


@pytest.mark.parametrize(("name", "value"), OUT_OF_RANGE)
def test_values_out_of_range_name_the_option_and_what_was_given(name, value):
    said = refused(**{name: value})
    assert said.startswith(f"{name.replace('_', '-')}: ")
    assert str(value) in said


def test_every_mistake_is_a_line():
    said = refused(lr=-1, rounds=0, batch_size="x").splitlines()
    assert sorted(line.split(":")[0] for line in said) == ["batch-size", "lr", "rounds"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"byzantine": 9}, "strategy multikrum: MultiKrum needs n > 2f + 2, got n=20, f=9"),
        ({"strategy": "krum", "clients": 4, "byzantine": 1}, "Krum needs n > 2f + 2, got n=4, f=1"),
        ({"strategy": "trimmedmean", "byzantine": 10}, "TrimmedMean needs n > 2f, got n=20, f=10"),
        ({"fraction_train": 0.5}, "MultiKrum needs n > 2f + 2, got n=10, f=4"),
        ({"strategy_options": "num_selected=21"}, "num_selected=21, got n=20"),
        ({"strategy_options": "num_byzantine=0.5"}, "strategy-options: num_byzantine, as a fraction"),
        ({"strategy_options": "num_byzantine=-1"}, "num_byzantine must not be negative, got -1"),
        ({"lr_decay_rounds": "9,3"}, "lr-decay-rounds must be ascending and at least 1, got (9, 3)"),
        ({"lr_decay_rounds": "0"}, "lr-decay-rounds must be ascending and at least 1, got (0,)"),
        ({"lr_decay_rounds": "soon"}, "lr-decay-rounds"),
        (
            {"attack": "optimalipm", "attack_options": "evaluations=0"},
            "evaluations must be at least 1, got 0",
        ),
        (
            {"attack": "strike", "byzantine": 10, "strategy": "median"},
            "STRIKE needs n - 2f >= 1, got n=20, f=10",
        ),
        ({"pre": "bucketing"}, "MultiKrum needs n > 2f + 2, got n=10, f=8"),
        ({"pre": "clip"}, "pre: Clip.__init__() missing"),
        ({"pre": "clip(max_norm=-1)"}, "pre: max_norm must be positive, got -1"),
        ({"pre": "buketing(s=2)"}, "unknown pre-aggregation 'buketing'; did you mean 'bucketing'?"),
        ({"pre": "nnm, bucketing(t=2)"}, "pre: bucketing: unknown parameter 't'"),
        ({"pre": "nnm("}, "pre: 'nnm(' is not of the form name or name(option=value, ...)"),
        ({"byzantine": 20}, "byzantine must be below clients=20, got 20"),
        ({"attack": "camouflage"}, "attack camouflage needs a strategy that keeps Adam's moments, as arfrs"),
        ({"nodes": 2, "clients_per_node": 5}, "give either nodes or clients-per-node, not both"),
        ({"attack_options": "start_round=0"}, "attack-options: start_round must be at least 1, got 0"),
        ({"attack_options": "start_round=5,stop_round=2"}, "stop_round 2 is before start_round 5"),
        ({"attack_options": "knowledge=data"}, "attack-options: knowledge must be colluding or omniscient"),
        ({"attack": "alie", "attack_options": "sign=0"}, "attack-options: sign must be -1 or 1, got 0"),
    ],
)
def test_what_cannot_be_run_is_refused_with_the_numbers(options, text):
    assert text in refused(**options)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"attack_options": "eps=large"}, "eps"),
        ({"attack_options": "start_round=soon"}, "start_round"),
        ({"attack_options": "start_round=1.5"}, "start_round"),
        ({"strategy_options": "num_byzantine=few"}, "num_byzantine"),
        ({"strategy_options": "weighted=perhaps"}, "weighted"),
        ({"attack": "alie", "attack_options": "z=none", "byzantine": 11, "strategy": "median"}, "set z"),
    ],
)
def test_parameters_that_an_attack_or_rule_cannot_use_are_refused_by_name(options, name):
    said = refused(**options)
    assert said.startswith(("attack", "strategy"))
    assert name in said


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", {}),
        (" eps = 3 , sign=-1,", {"eps": 3, "sign": -1}),
        ("a=true,b=False,c=None,d=none", {"a": True, "b": False, "c": None, "d": None}),
        ("a=0.5,b=1e-3,c=text,d=a=b,e=", {"a": 0.5, "b": 1e-3, "c": "text", "d": "a=b", "e": ""}),
        ({"eps": 3}, {"eps": 3}),
    ],
)
def test_options_are_parsed(text, options):
    parsed = parse_options(text)
    assert parsed == options
    assert list(map(type, parsed.values())) == list(map(type, options.values()))


@given(
    st.dictionaries(st.from_regex("[a-z_]{1,8}", fullmatch=True), st.integers() | st.booleans() | st.floats())
)
def test_options_written_out_are_read_back(options):
    read = parse_options(",".join(f"{name}={value}" for name, value in options.items()))
    assert repr(read) == repr(options)


@pytest.mark.parametrize("text", ["eps", "=3", "2x=3", "a b=3", "eps=1,3", 5, None, ["eps=3"]])
def test_what_is_no_option_is_refused(text):
    with pytest.raises(ValueError, match="name=value"):
        parse_options(text)


@pytest.mark.parametrize(
    ("given_value", "steps"), [("", ()), ("75,90", (75, 90)), (" 7 ,", (7,)), (7, (7,)), ([1, 2], (1, 2))]
)
def test_rounds_of_decay_are_a_list(given_value, steps):
    assert RunConfig.make({"lr_decay_rounds": given_value}).lr_decay_rounds == steps


def test_the_attack_is_tried_on_a_round_of_the_clients_that_it_meets():
    options = {"clients": 1000, "byzantine": 200, "fraction_train": 0.01, "strategy": "median"}
    assert RunConfig.make({**options, "attack": "strike"}).clients_per_round == 10
    with pytest.raises(ConfigError, match="STRIKE needs n - 2f >= 1, got n=10, f=6"):
        RunConfig.make({**options, "attack": "strike", "byzantine": 600})


def test_options_reach_the_attack_and_the_rule():
    config = RunConfig.make(
        {"attack_options": "eps=3,knowledge=colluding", "strategy_options": "num_byzantine=0.25"}
    )
    assert config.make_attack() == IPM(eps=3, knowledge=Knowledge.COLLUDING)
    assert config.make_strategy().num_byzantine == 0.25
    assert RunConfig.make({"byzantine": 3}).make_strategy().num_byzantine == 3
    assert RunConfig.make({"attack": "alie", "attack_options": "z=none"}).make_attack() == ALIE(z=None)
    assert RunConfig.make({"attack": "none"}).make_attack() is None


def test_pre_aggregations_are_written_on_one_line():
    config = RunConfig.make({"pre": "NNM, bucketing(s=2, seed=3), clip(max_norm=0.5)", "byzantine": 2})
    assert config.make_strategy().pre == (
        NearestNeighborMixing(2),
        Bucketing(2, seed=3),
        Clip(0.5),
    )


@pytest.mark.parametrize(
    "name", ["mine", "table-1/quick", "2026.11 alie, f=3", "ÄÖ/ü_(x)", "console", "n" * 200]
)
@pytest.mark.parametrize("make", [RunConfig.make, RecommendationConfig.make])
def test_names_become_folders_in_out(name, make):
    folder = make({"name": name, "out": "some/where"}).folder()
    assert folder.parents[name.count("/") + 1] == Path("some/where")


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("../..", "begins or ends with a dot"),
        ("a/../../b", "begins or ends with a dot"),
        ("a/./b", "begins or ends with a dot"),
        (".hidden", "begins or ends with a dot"),
        ("end.", "begins or ends with a dot"),
        (" a", "a dot or a space"),
        ("/etc/x", "no part of a name, between slashes, is empty"),
        ("a//b", "is empty"),
        ("a/", "is empty"),
        ("n" * 201, "at most 200 bytes"),
        ("ü" * 101, "at most 200 bytes"),
        ("a\nb", "control characters"),
        ("a\x1b[31m", "control characters"),
        ("a\0", "control characters"),
        ("a\u202eb", "control characters"),
        ("\udc80", "control characters"),
        ("a\\b", "nor any of"),
        ("C:x", "nor any of"),
        ("a/nul", "reserve the name nul"),
        ("COM1.txt", "reserve the name COM1.txt"),
    ],
)
@pytest.mark.parametrize("make", [RunConfig.make, RecommendationConfig.make])
def test_names_that_would_leave_out_or_fit_no_disk_are_refused(name, fault, make):
    with pytest.raises(ConfigError, match=f"name: .*{fault}"):
        make({"name": name})


def test_out_is_free_but_for_what_no_folder_can_be():
    for out in ("..", "/tmp/x", ".hidden", "a b"):
        assert RunConfig.make({"out": out}).folder().parents[1] == Path(out)
    with pytest.raises(ConfigError, match="out: no folder's name has a null character"):
        RunConfig.make({"out": "a\0b"})


def test_the_hash_stands_for_what_results_depend_on_and_nothing_else():
    base = RunConfig()
    assert set(RunConfig.model_fields) == CHANGES.keys() | EXECUTION.keys()
    for name, value in EXECUTION.items():
        other = RunConfig.make({name: value})
        assert getattr(other, name) != getattr(base, name)
        assert other.config_hash() == base.config_hash(), name
    hashes = [
        RunConfig.make({name: value} | NEEDS.get(name, {})).config_hash() for name, value in CHANGES.items()
    ]
    assert len({base.config_hash(), *hashes}) == len(CHANGES) + 1


def test_clients_see_their_part_of_the_configuration():
    config = RunConfig.make({"lr": 0.5, "attack_options": "eps=2", "rounds": 3})
    settings = config.client_settings()
    assert type(settings) is ClientSettings
    assert settings.model_dump().items() <= config.model_dump().items()
    assert ClientSettings(**settings.model_dump()) == settings


def test_flowers_run_config_has_the_same_names_and_defaults():
    given_config = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    names = {key.replace("-", "_") for key in given_config}
    assert all("_" not in key for key in given_config)
    fields = RunConfig.model_fields.keys() | RecommendationConfig.model_fields.keys()
    assert names <= fields
    # Flower lets users override only what is listed; engines' resources are Flower's business here.
    engine = {"clients_per_node", "num_cpus", "num_gpus", "ray_address"}
    assert fields - names == engine
    config = config_from_flower(given_config)
    assert config == RunConfig()
    other = config_from_flower({**given_config, "task": "recommendation"})
    assert other == RecommendationConfig()
    assert (
        RecommenderSettings.from_run_config({**given_config, "task": "recommendation"})
        == other.client_settings()
    )
    settings = ClientSettings.from_run_config(given_config)
    assert settings == config.client_settings()


def test_flowers_run_config_is_checked_alike():
    with pytest.raises(ConfigError, match="unknown option 'batch_sise'; did you mean 'batch_size'"):
        config_from_flower({"batch-sise": 3})
    assert config_from_flower({"max-client-weight": 0.25, "strategy": "fedavg"}).max_client_weight == 0.25
