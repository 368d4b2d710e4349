"""A node may be started as a Byzantine one, or an honest one, whatever the server's settings say."""

import json

import numpy as np
import pytest
from flwr.common import ArrayRecord, ConfigRecord, Context, Message, RecordDict

from byzflower.attacks import PGD, Scaling
from byzflower.clients import BenignClient, ByzantineClient, ClientSettings
from byzflower.clients.app import app
from byzflower.flower.compat import array_record, set_message_id, set_message_origin
from byzflower.models import build_model
from flower import plain_reply

pytestmark = pytest.mark.compat

SETTINGS = ClientSettings(model="mlp", clients=4, byzantine=1, attack="bitflip", batches=1)
MODEL = {k: t.numpy() for k, t in build_model("mlp", (1, 8, 8), 10, seed=3).state_dict().items()}


def answer(client, **node_config):
    """What the node of a client uploads when the server's settings are SETTINGS."""
    plain_reply(1, {})  # messages can be made from here on
    config = {"settings": json.dumps(SETTINGS.model_dump()), "server-round": 1, "upload": "weights"}
    content = RecordDict({"arrays": array_record(MODEL), "config": ConfigRecord(config)})
    message = Message(content, dst_node_id=7, message_type="train")
    set_message_id(message, "1")
    set_message_origin(message, 1, 1)
    own = {
        "partition-id": client,
        "num-partitions": 4,
        **{k.replace("_", "-"): v for k, v in node_config.items()},
    }
    context = Context(run_id=1, node_id=7, node_config=own, state=RecordDict(), run_config={})
    (arrays,) = (r for r in app(message, context).content.values() if isinstance(r, ArrayRecord))
    return arrays.to_numpy_ndarrays()


def trained(client):
    return client.fit(list(MODEL.values()), {"server-round": 1})[0]


def same(left, right):
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def test_without_a_word_the_settings_decide():
    assert same(answer(0), trained(ByzantineClient(0, SETTINGS, SETTINGS.make_attack())))
    assert same(answer(1), trained(BenignClient(1, SETTINGS)))


def test_a_node_that_is_told_to_attack_does_so_in_its_own_way():
    expected = trained(ByzantineClient(2, SETTINGS, Scaling(factor=3.0)))
    assert same(answer(2, byzantine=True, attack="scaling", attack_options="factor=3.0"), expected)
    assert not same(expected, trained(BenignClient(2, SETTINGS)))
    assert same(answer(2, byzantine=True), trained(ByzantineClient(2, SETTINGS, SETTINGS.make_attack())))


def test_a_node_that_is_told_to_be_honest_is():
    assert same(answer(0, byzantine=False), trained(BenignClient(0, SETTINGS)))


@pytest.mark.parametrize("attack", ["alie", "ipm", "strike"])
def test_a_node_cannot_run_what_only_the_server_can(attack):
    with pytest.raises(ValueError, match=f"attack {attack} needs all clients' updates: only the server can"):
        answer(1, byzantine=True, attack=attack)


def test_a_node_may_train_as_its_own_attack_says():
    expected = trained(ByzantineClient(2, SETTINGS, PGD(radius=0.1)))
    assert same(answer(2, byzantine=True, attack="pgd", attack_options="radius=0.1"), expected)
    assert not same(expected, trained(BenignClient(2, SETTINGS)))


def test_a_users_node_cannot_flip_labels(monkeypatch):
    users = ClientSettings(dataset="synthetic-small", model="fism", attack="bitflip", clients=4, byzantine=1)
    monkeypatch.setitem(globals(), "SETTINGS", users)
    with pytest.raises(ValueError, match="attack labelflip needs a data set with labels"):
        answer(0, byzantine=True, attack="labelflip")


def test_a_mistake_in_a_nodes_configuration_is_named():
    with pytest.raises(ValueError, match="not of the form name=value"):
        answer(1, byzantine=True, attack="scaling", attack_options="factor is not")
    with pytest.raises(KeyError, match="nosuch"):
        answer(1, byzantine=True, attack="nosuch")
