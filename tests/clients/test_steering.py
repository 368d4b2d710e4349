"""What attacks that train in a classifier's client get to see, and that what they return is what is sent."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.common import RecordDict
from torch.nn import functional as F

from byzflower.attacks import PGD, LabelFlip, Neurotoxin, TrainingAttack, flip_labels
from byzflower.clients import BenignClient, ByzantineClient, ClientSettings
from byzflower.clients.memory import attack_memory
from byzflower.models import build_model
from byzflower.uploads import Layout
from byzflower.uploads.moments import Moments
from byzflower.uploads.optimizers import Adam

DOCS = Path(__file__).parents[2] / "docs"
WAYS = {
    "sgd": {},
    "momentum and decay": {"momentum": 0.9, "weight_decay": 0.01},
    "adam, clipped": {"optimizer": "adam", "clip_norm": 0.1},
}


@dataclass(frozen=True, kw_only=True)
class Custom(TrainingAttack):
    """Does what a test wants, and keeps the view."""

    do: object = None
    seen: list = field(default_factory=list)

    def train(self, view):
        self.seen.append(view)
        return self.do(view)


def settings(**options):
    return ClientSettings(
        **{"model": "mlp", "clients": 5, "byzantine": 2, "lr": 0.05, "batches": 3, **options}
    )


def start_model(name="mlp"):
    return {
        k: t.detach().numpy().copy() for k, t in build_model(name, (1, 8, 8), 10, seed=3).state_dict().items()
    }


def fit(client, model, server_round=1, upload="weights"):
    arrays, size, metrics = client.fit(list(model.values()), {"server-round": server_round, "upload": upload})
    return Layout.of(model).row(arrays), size, metrics


def fit_both(attack, benign=None, upload="weights", name="mlp", **options):
    own, model = settings(model=name, **options), start_model(name)
    other = fit(benign or BenignClient(0, own), model, upload=upload)
    return Layout.of(model), fit(ByzantineClient(0, own, attack), model, upload=upload), other


@pytest.mark.parametrize("name", ["mlp", "resnet20"])
@pytest.mark.parametrize("upload", ["weights", "gradient"])
@pytest.mark.parametrize("way", WAYS)
def test_to_fit_is_to_be_benign(way, upload, name):
    options = WAYS[way] | {"batches": 1 + (name == "mlp"), "max_samples": 200}
    attack = Custom(do=lambda view: view.fit(view.batches()))
    layout, (ours, size, metrics), (benign, same_size, expected) = fit_both(
        attack, None, upload, name, **options
    )
    np.testing.assert_allclose(ours, benign, rtol=1e-5, atol=1e-6)
    if upload == "gradient":
        np.testing.assert_array_equal(ours, benign)
    assert (size, metrics["train-loss"]) == (same_size, expected["train-loss"])
    assert (layout.num_buffers > 0) == (name == "resnet20")


@pytest.mark.parametrize("upload", ["weights", "gradient"])
def test_poisoned_batches_are_a_data_attack(upload):
    def flip(view):
        return view.fit((x, flip_labels(y, 10)) for x, y in view.batches())

    flipping = ByzantineClient(0, settings(), LabelFlip())
    _, (ours, _, metrics), (theirs, _, expected) = fit_both(Custom(do=flip), flipping, upload)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert metrics["train-loss"] == expected["train-loss"]


@pytest.mark.parametrize("way", WAYS)
def test_every_step_is_altered_and_projected(way):
    attack = Custom(
        do=lambda view: view.fit(
            view.batches(), alter=lambda g: -2 * g, project=lambda learned: learned.clamp(-0.01, 0.004)
        )
    )
    own = settings(**WAYS[way])
    client = ByzantineClient(0, own, attack)
    model = start_model()
    ours, _, _ = fit(client, model)
    twin = build_model("mlp", (1, 8, 8), 10, seed=3)
    parameters = list(twin.parameters())
    start = [p.detach().clone() for p in parameters]
    optimizer = (
        torch.optim.Adam(parameters, own.lr)
        if own.optimizer == "adam"
        else torch.optim.SGD(parameters, own.lr, momentum=own.momentum, weight_decay=own.weight_decay)
    )
    for x, y in client._batches(1):
        optimizer.zero_grad()
        F.cross_entropy(twin(x), y).backward()
        if own.clip_norm:
            torch.nn.utils.clip_grad_norm_(parameters, own.clip_norm)
        for p in parameters:
            p.grad *= -2
        optimizer.step()
        with torch.no_grad():
            for p, s in zip(parameters, start, strict=True):
                p.copy_(s - (s - p).clamp(-0.01, 0.004))
    expected = torch.cat([p.detach().reshape(-1) for p in parameters]).numpy()
    close = np.isclose(ours, expected, rtol=1e-4, atol=1e-6)
    assert close.mean() > 0.99 if own.optimizer == "adam" else close.all()


def test_an_altered_gradient_is_uploaded_as_the_mean_over_the_batches():
    attack = Custom(do=lambda view: view.fit(view.batches(), alter=torch.square, project=lambda g: g / 2))
    own = settings(weight_decay=0.1)
    client, model = ByzantineClient(0, own, attack), start_model()
    ours, _, _ = fit(client, model, upload="gradient")
    (view,) = attack.seen
    squares = [view.gradient(view.model, batch).square() for batch in view.batches()]
    expected = (torch.stack(squares).mean(dim=0) + 0.1 * view.model) / 2
    np.testing.assert_allclose(ours, expected.numpy(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["cnn", "resnet20"])
def test_gradients_and_logits_are_those_of_the_model_anywhere(name):
    attack = Custom(do=lambda view: torch.zeros_like(view.model))
    layout, (ours, _, metrics), _ = fit_both(attack, name=name, batches=1, max_samples=100)
    (view,) = attack.seen
    twin = build_model(name, (1, 8, 8), 10, seed=3)
    assert [tuple(p.shape) for p in twin.parameters()] == [tensor.shape for tensor in view.tensors]
    place = view.model + 0.01 * torch.randn(len(view.model), generator=view.generator)
    torch.nn.utils.vector_to_parameters(place, twin.parameters())
    (x, y), *_ = view.batches()
    F.cross_entropy(twin(x), y).backward()
    expected = torch.cat([p.grad.reshape(-1) for p in twin.parameters()])
    for _ in range(2):  # nothing is left behind
        got = view.gradient(place, (x, y))
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-5)
    twin = build_model(name, (1, 8, 8), 10, seed=3).eval()
    torch.nn.utils.vector_to_parameters(place, twin.parameters())
    features = x.clone().requires_grad_()
    logits = view.logits(place.requires_grad_(), features)
    torch.testing.assert_close(logits, twin(x), rtol=1e-3, atol=1e-5)
    by = torch.autograd.grad(logits.sum(), [place, features])
    assert all(bool(slope.any()) for slope in by)
    np.testing.assert_array_equal(ours, layout.row(start_model(name).values()))  # zeros: as it came
    assert metrics["train-loss"] == 0


def test_what_a_view_shows():
    attack = Custom(do=lambda view: view.model * 0)
    own, model = settings(seed=7), start_model()
    client = ByzantineClient(1, own, attack)
    fit(client, model, server_round=4)
    fit(client, model, server_round=4)
    first, again = attack.seen
    np.testing.assert_array_equal(first.model.numpy(), Layout.of(model).row(model.values()))
    assert (first.round, first.client, len(first.moments)) == (4, 1, 0)
    assert first.tensors[-1].columns.stop == len(first.model)
    assert torch.equal(torch.rand(3, generator=first.generator), torch.rand(3, generator=again.generator))
    for (x, y), (u, v), (p, q) in zip(first.batches(), first.batches(), client._batches(4), strict=True):
        assert torch.equal(x, u)
        assert torch.equal(y, v)
        assert torch.equal(x, p)
        assert torch.equal(y, q)


def test_moments_are_shown_and_the_step_is_the_optimizers():
    attack = Custom(do=lambda view: view.fit(view.batches(), alter=torch.neg))
    own, model, kind = settings(), start_model(), Moments(Adam())
    sent = kind.broadcast(model)
    config = {"server-round": 1, **kind.told()}
    gradients = []
    for client in (BenignClient(0, own), ByzantineClient(0, own, attack)):
        learned, _, _ = client.fit(list(sent.values()), config)
        gradients.append(Layout.of(model).row(learned))
    np.testing.assert_array_equal(gradients[1], -gradients[0])
    assert attack.seen[0].moments.shape == (2, len(attack.seen[0].model))


def test_outside_of_its_window_it_is_benign():
    attack = Custom(do=lambda view: view.model, start_round=2, stop_round=2)
    model = start_model()
    for server_round, differs in ((1, False), (2, True), (3, False)):
        ours, _, _ = fit(ByzantineClient(0, settings(), attack), model, server_round)
        benign, _, _ = fit(BenignClient(0, settings()), model, server_round)
        assert np.array_equal(ours, benign) is not differs
    assert len(attack.seen) == 1


def test_what_it_keeps_is_its_clients_own_and_stays_in_the_nodes_state():
    state = RecordDict()

    def count(view):
        view.memory["count"] = view.memory.get("count", torch.zeros(1)) + 1 + view.client
        if view.round == 3:
            del view.memory["count"]
        return torch.zeros_like(view.model)

    attack = Custom(do=count)
    for server_round in (1, 2):
        for client in (0, 1):
            fit(ByzantineClient(client, settings(), attack, state), start_model(), server_round)
    for client in (0, 1):
        with attack_memory(state, client) as memory:
            assert memory["count"].tolist() == [2 * (1 + client)]
    fit(ByzantineClient(0, settings(), attack, state), start_model(), 3)
    with attack_memory(state, 0) as mine, attack_memory(state, 1) as other:
        assert (list(mine), list(other)) == ([], ["count"])


@pytest.mark.parametrize("upload", ["weights", "gradient"])
def test_pgd_uploads_from_within_the_ball_whatever_the_optimizer(upload):
    layout, (ours, _, _), (benign, _, _) = fit_both(PGD(radius=0.05), None, upload, lr=1.0)
    before = layout.row(start_model().values())
    g, honest = ((before - row if upload == "weights" else row).astype(float) for row in (ours, benign))
    assert np.linalg.norm(g) == pytest.approx(0.05, rel=1e-3)
    assert np.linalg.norm(honest) > 0.06
    assert g @ honest < 0


def test_neurotoxin_moves_only_what_two_broadcasts_say():
    attack, own, state, model = (
        Neurotoxin(masked=0.3),
        settings(weight_decay=0.1),
        RecordDict(),
        start_model(),
    )
    layout = Layout.of(model)
    fit(ByzantineClient(0, own, attack, state), model, 1)
    before = layout.row(model.values())
    change = np.random.default_rng(0).normal(size=layout.d).astype(np.float32)
    second = dict(zip(model, layout.arrays(before - change), strict=True))
    ours, _, _ = fit(ByzantineClient(0, own, attack, state), second, 2)
    moved = ours != layout.row(second.values())
    most = np.argsort(-np.abs(change))[: int(np.ceil(0.3 * layout.d))]
    assert not moved[most].any()
    assert moved.sum() > 0.5 * layout.d


def test_the_example_of_the_documentation_trains():
    (example,) = re.findall(r"```python\n(.*?)```", (DOCS / "attacks.md").read_text(), re.DOTALL)
    names = {"__name__": "example"}
    exec(example, names)
    attack, model = names["LazyAscent"](), start_model()
    for server_round, benign in ((1, True), (2, False)):
        ours, _, _ = fit(ByzantineClient(0, settings(), attack), model, server_round)
        theirs, _, _ = fit(BenignClient(0, settings()), model, server_round)
        assert np.allclose(ours, theirs, rtol=1e-5, atol=1e-6) is benign
