"""Local training against plain torch, and what Byzantine clients change about it."""

import numpy as np
import pytest
import torch
from flwr.common import RecordDict
from torch.nn import functional as F

from byzflower.clients import BenignClient, ByzantineClient, ClientSettings
from byzflower.clients.data import training_data
from byzflower.clients.settings import parse_options
from byzflower.clients.trainer import batch_indices
from byzflower.models import build_model
from byzflower.uploads import Layout


def settings(**options):
    return ClientSettings(
        **{"model": "mlp", "clients": 5, "byzantine": 2, "lr": 0.1, "batches": 1, **options}
    )


def start_model(name="mlp"):
    return build_model(name, (1, 8, 8), 10, seed=3)


def arrays_of(model):
    return [t.detach().numpy().copy() for t in model.state_dict().values()]


def fit(client, model, server_round=1, upload="weights"):
    arrays, size, metrics = client.fit(arrays_of(model), {"server-round": server_round, "upload": upload})
    return arrays, size, metrics


class Watched(BenignClient):
    """Keeps the batches that it trained on."""

    def poison(self, batch, server_round):
        self.__dict__.setdefault("batches", []).append(tuple(t.clone() for t in batch))
        return batch


OPTIMIZERS = {
    "sgd": ({}, lambda p: torch.optim.SGD(p, 0.1)),
    "momentum": ({"momentum": 0.9}, lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
    "weight decay": ({"weight_decay": 0.01}, lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.01)),
    "adam": ({"optimizer": "adam", "lr": 0.01}, lambda p: torch.optim.Adam(p, 0.01)),
    "clipped": ({"clip_norm": 0.01}, lambda p: torch.optim.SGD(p, 0.1)),
}


@pytest.mark.parametrize("name", ["mlp", "cnn"])
@pytest.mark.parametrize("case", OPTIMIZERS)
def test_weights_are_those_of_torch_own_optimizer(case, name):
    options, make = OPTIMIZERS[case]
    client = Watched(0, settings(model=name, batches=4, **options))
    model = start_model(name)
    uploaded, size, metrics = fit(client, model)
    optimizer = make(model.parameters())
    losses = []
    for x, y in client.batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        if case == "clipped":
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()
        losses.append(loss.item())
    for ours, torchs in zip(uploaded, arrays_of(model), strict=True):
        close = np.isclose(ours, torchs, rtol=1e-4, atol=1e-6)
        # Adam makes full steps of gradients near zero, whose sign is a matter of rounding.
        assert close.mean() > 0.99 if case == "adam" else close.all()
    assert metrics["train-loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert size == len(client.indices)


@pytest.mark.parametrize("batches", [1, 3])
def test_an_uploaded_gradient_is_the_mean_over_the_batches(batches):
    client = Watched(1, settings(batches=batches, weight_decay=0.1))
    model = start_model()
    uploaded, _, _ = fit(client, model, upload="gradient")
    for x, y in client.batches:
        (F.cross_entropy(model(x), y) / batches).backward()
    for ours, parameter in zip(uploaded, model.parameters(), strict=True):
        expected = parameter.grad + 0.1 * parameter.detach()
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("upload", ["weights", "gradient"])
def test_local_momentum_is_an_average_over_rounds(upload):
    beta, model, state = 0.9, start_model(), RecordDict()
    layout = Layout.of(dict(zip(model.state_dict(), arrays_of(model), strict=True)))
    before = layout.row(arrays_of(model))
    expected = 0.0
    for server_round in (1, 2, 3):
        plain, _, _ = fit(BenignClient(2, settings()), model, server_round, upload)
        with_momentum, _, _ = fit(
            BenignClient(2, settings(local_momentum=beta), state), model, server_round, upload
        )
        rows = [layout.row(arrays) for arrays in (plain, with_momentum)]
        g, m = (before - row if upload == "weights" else row for row in rows)
        expected = (1 - beta) * g + beta * expected
        np.testing.assert_allclose(m, expected, rtol=1e-4, atol=1e-6)


def test_clients_on_one_node_keep_their_own_momentum():
    state, model = RecordDict(), start_model()
    alone = [fit(BenignClient(c, settings(local_momentum=0.5)), model)[0] for c in (0, 1)]
    shared = [fit(BenignClient(c, settings(local_momentum=0.5), state), model)[0] for c in (0, 1)]
    for one, other in zip(alone, shared, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_batches_differ_between_rounds_and_clients_and_repeat_with_the_seed():
    def upload(client, server_round, seed=1):
        return fit(BenignClient(client, settings(seed=seed)), start_model(), server_round)[0][0]

    again = upload(0, 1)
    np.testing.assert_array_equal(upload(0, 1), again)
    for other in (upload(0, 2), upload(1, 1), upload(0, 1, seed=2)):
        assert not np.array_equal(other, again)


@pytest.mark.parametrize("size", [1, 5, 16, 33])
@pytest.mark.parametrize("epochs", [1, 3])
def test_an_epoch_uses_every_sample_once(size, epochs):
    options = settings(batches=0, epochs=epochs, batch_size=8)
    batches = list(batch_indices(size, options, np.random.default_rng(0)))
    assert all(0 < len(batch) <= 8 for batch in batches)
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.repeat(np.arange(size), epochs))


@pytest.mark.parametrize("size", [1, 5, 64])
def test_a_number_of_batches_is_that_number(size):
    batches = list(batch_indices(size, settings(batches=7, batch_size=8), np.random.default_rng(0)))
    assert [len(b) for b in batches] == [min(8, size)] * 7
    assert all(len(set(b.tolist())) == len(b) for b in batches)


def test_label_flip_trains_on_the_opposite_labels():
    attack = settings(attack="labelflip").make_attack()
    client = ByzantineClient(0, settings(), attack)
    x, y = training_data(settings())[0].train(client.indices[:10])
    features, labels = client.poison((x, y), 1)
    assert torch.equal(features, x)
    assert torch.equal(labels, 9 - y)


@pytest.mark.parametrize("upload", ["weights", "gradient"])
def test_bit_flip_uploads_the_opposite_step(upload):
    model = start_model()
    honest, _, _ = fit(BenignClient(0, settings()), model, upload=upload)
    attack = settings(attack="bitflip", attack_options="start_round=2").make_attack()
    client = ByzantineClient(0, settings(), attack)
    before, _, _ = fit(client, model, 1, upload)
    np.testing.assert_array_equal(before[0], honest[0])
    honest, _, _ = fit(BenignClient(0, settings()), model, 2, upload)
    flipped, _, _ = fit(client, model, 2, upload)
    for start, one, other in zip(arrays_of(model), honest, flipped, strict=True):
        expected = 2 * start - one if upload == "weights" else -one
        np.testing.assert_allclose(other, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("knowledge", "trains"), [("omniscient", False), ("colluding", True)])
def test_only_colluding_attackers_need_their_honest_update(knowledge, trains):
    options = settings(attack="ipm", attack_options=f"knowledge={knowledge}")
    model = start_model()
    arrays, _, _ = fit(ByzantineClient(0, options, options.make_attack()), model)
    assert np.array_equal(arrays[0], arrays_of(model)[0]) is not trains


def test_a_random_byzantine_set_depends_on_the_seed_alone():
    sets = [
        settings(clients=40, byzantine=8, byzantine_set="random", seed=s).byzantine_ids() for s in (1, 1, 2)
    ]
    assert sets[0] == sets[1] != sets[2]
    assert all(len(s) == 8 and s <= set(range(40)) for s in sets)
    assert settings(attack="none").byzantine_ids() == frozenset()


def test_evaluation_scores_the_broadcast_model():
    client = BenignClient(3, settings())
    model = start_model().eval()
    loss, size, metrics = client.evaluate(arrays_of(model), {})
    x, y = client.dataset.train(client.indices)
    with torch.no_grad():
        logits = model(x)
    assert loss == pytest.approx(F.cross_entropy(logits, y).item(), rel=1e-4)
    assert metrics["accuracy"] == pytest.approx((logits.argmax(1) == y).float().mean().item())
    assert (size, metrics["client-id"]) == (len(y), 3)


def test_wrong_arrays_and_ids_are_refused():
    with pytest.raises(ValueError, match="not those of the configured model"):
        fit(BenignClient(0, settings()), start_model("cnn"))
    with pytest.raises(ValueError, match=r"client id 5 is not in \[0, 5\)"):
        BenignClient(5, settings())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("eps=10", {"eps": 10}),
        (" z = none , sign=-1", {"z": None, "sign": -1}),
        ("a=0.5,b=true,c=word", {"a": 0.5, "b": True, "c": "word"}),
    ],
)
def test_options_on_one_line(text, expected):
    assert parse_options(text) == expected


@pytest.mark.parametrize("text", ["eps", "=3", "1x=2", "a b=1", 5])
def test_options_that_are_none(text):
    with pytest.raises(ValueError, match=r"name=value"):
        parse_options(text)
