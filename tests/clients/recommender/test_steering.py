"""Attacks that train in the place of a recommender's user."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from flwr.common import RecordDict

from byzflower.attacks import PGD, TrainingAttack
from byzflower.clients.recommender import client as personal
from byzflower.clients.recommender.moments import divided_feedback, recommender_of, train_users
from byzflower.clients.recommender.settings import RecommenderSettings
from byzflower.clients.settings import ClientSettings
from byzflower.models.profiles import Profiles
from byzflower.uploads.moments import Moments
from byzflower.uploads.optimizers import Adam

CLIENTS, BYZANTINE = [0, 1, 2, 5], 2


@dataclass(frozen=True, kw_only=True)
class Custom(TrainingAttack):
    """Does what a test wants, and keeps the view."""

    do: object = None
    seen: list = field(default_factory=list)

    def train(self, view):
        self.seen.append(view)
        return self.do(view)


def fitting(view):
    return view.fit(view.batches())


# -- stateless: the server keeps the moments ---------------------------------------------------------


def upload(monkeypatch, attack, model="fism", **options):
    """The upload of four users, of whom 0 and 1 are Byzantine, and the gradients in it: (4, d)."""
    monkeypatch.setattr(ClientSettings, "make_attack", lambda self: attack)
    settings = ClientSettings(
        **{"dataset": "synthetic-small", "model": model, "model_options": "dim=4", "clients": 8},
        **{"byzantine": BYZANTINE, "attack": "pgd", "weight_decay": 0.1, "negatives": 2, **options},
    )
    recommender = recommender_of(settings, divided_feedback(settings)[0].num_items)
    torch.manual_seed(0)
    tables = {name: torch.randn(t.shape).numpy() for name, t in recommender.state_dict().items()}
    kind = Moments(Adam())
    sent = kind.broadcast(tables)
    made, _ = train_users(
        CLIENTS, settings, list(sent.values()), {"server-round": 3, **kind.told()}, RecordDict()
    )
    d = sum(table.size for table in tables.values())
    gradients = np.zeros((len(CLIENTS), d // 4, 4), np.float32)
    for i in range(len(CLIENTS)):
        m = made.client(i).values[1]
        gradients[i, made.client(i).rows] = (m / np.float32(0.1)).reshape(-1, 4)
    return made, gradients.reshape(len(CLIENTS), -1)


@pytest.mark.parametrize("model", ["fism", "fmf"])
def test_to_fit_is_to_be_benign(monkeypatch, model):
    benign, expected = upload(monkeypatch, None, model)
    attack = Custom(do=fitting)
    ours, got = upload(monkeypatch, attack, model)
    np.testing.assert_array_equal(got, expected)
    for i in range(len(CLIENTS)):
        np.testing.assert_array_equal(ours.client(i).rows, benign.client(i).rows)
        np.testing.assert_array_equal(ours.client(i).values, benign.client(i).values)
    assert [view.client for view in attack.seen] == [0, 1]
    for view in attack.seen:
        assert len(view.model) == view.moments.shape[1] == got.shape[1] == view.tensors[-1].columns.stop
        assert (view.round, len(view.moments), view.logits) == (3, 2, None)


@pytest.mark.parametrize("model", ["fism", "fmf"])
def test_it_may_touch_any_item_and_sends_nothing_else(monkeypatch, model):
    def one_row(view):
        row = torch.zeros_like(view.model)
        row[-2] = 7
        return row

    made, got = upload(monkeypatch, Custom(do=one_row), model)
    _, expected = upload(monkeypatch, None, model)
    np.testing.assert_array_equal(got[BYZANTINE:], expected[BYZANTINE:])
    for i in range(BYZANTINE):
        assert len(made.client(i).rows) == 1
        assert got[i, -2] == pytest.approx(7)
    made, _ = upload(monkeypatch, Custom(do=lambda view: torch.zeros_like(view.model)), model)
    assert [len(rows) for rows in made.touched[:BYZANTINE]] == [0, 0]


def test_gradients_are_those_of_the_loss_anywhere_and_leave_the_shared_model_alone(monkeypatch):
    attack = Custom(do=fitting)
    _, expected = upload(monkeypatch, attack, weight_decay=0.0)
    view = attack.seen[0]
    (batch,) = view.batches()
    np.testing.assert_allclose(view.gradient(view.model, batch), expected[0], rtol=1e-6, atol=1e-7)
    items, others = batch
    assert others.shape == (len(items), 2)
    shuffled = torch.randperm(len(items))
    torch.testing.assert_close(
        view.gradient(view.model, (items[shuffled], others[shuffled])), view.gradient(view.model, batch)
    )
    place = (2 * view.model).requires_grad_()
    p, q = place.view(2, -1, 4)
    score = 0
    for j, negatives in zip(items.tolist(), others.tolist(), strict=True):
        rest = [k for k in items.tolist() if k != j]
        for k in negatives:
            y_j, y_k = p[j] @ q[rest].sum(0) / len(rest), p[k] @ q[items].mean(0)
            score = score - torch.nn.functional.logsigmoid(y_j - y_k)
    (slope,) = torch.autograd.grad(score, place)
    torch.testing.assert_close(view.gradient(place.detach(), batch), slope, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(view.gradient(view.model, batch), expected[0], rtol=1e-6, atol=1e-7)
    with pytest.raises(ValueError, match="a user's items must be distinct"):
        view.gradient(view.model, (items[:1].repeat(2), others[:2]))


def test_a_ball_bounds_a_users_gradient(monkeypatch):
    _, benign = upload(monkeypatch, None)
    _, got = upload(monkeypatch, PGD(radius=0.5))
    norms = np.linalg.norm(got[:BYZANTINE], axis=1)
    np.testing.assert_allclose(norms, 0.5, rtol=1e-5)
    assert ((got * benign).sum(axis=1)[:BYZANTINE] < 0).all()


# -- personal: users keep their embeddings -----------------------------------------------------------


def item_upload(monkeypatch, attack, state, model="mf", server_round=1):
    monkeypatch.setattr(RecommenderSettings, "make_attack", lambda self: attack)
    settings = RecommenderSettings(dataset="synthetic-small", model=model, byzantine=2)
    users = settings.feedback.train.num_users
    arrays = settings.make_model().arrays(settings.feedback.train.num_items, 1)
    made = personal.fit_users([0, users, users + 1], settings, state, list(arrays.values()), server_round)
    return settings, list(arrays.values()), made


@pytest.mark.parametrize("model", ["mf", "gnn"])
def test_a_made_up_user_that_fits_is_one_of_the_data_sets(monkeypatch, model):
    state, attack = RecordDict(), Custom(do=fitting)
    settings, arrays, made = item_upload(monkeypatch, attack, state, model)
    users = made.client_ids[1:]
    pairs = [personal._made_up(settings.dataset, settings.data, settings.seed, user) for user in users]
    profiles = Profiles.of(*zip(*pairs, strict=True))
    own = np.stack([settings.make_model().user(settings.seed, user) for user in users])
    found = settings.make_model().gradients(profiles, own, arrays, settings.reg)
    start = made.splits[1]
    np.testing.assert_array_equal(made.items[start:], profiles.items)
    np.testing.assert_array_equal(made.rows[start:], found.rows)
    np.testing.assert_array_equal(made.dense[1:], found.dense)
    np.testing.assert_array_equal(made.splits[1:] - start, profiles.splits)
    np.testing.assert_allclose(
        personal._embeddings(users, settings, state), own - settings.lr * found.users, rtol=1e-6
    )
    for view in attack.seen:
        np.testing.assert_array_equal(view.model, np.concatenate([a.reshape(-1) for a in arrays]))


def test_it_uploads_the_rows_that_it_made(monkeypatch):
    def two_rows(view):
        row = torch.zeros_like(view.model)
        row[:33] = 1
        return row

    _, _, made = item_upload(monkeypatch, Custom(do=two_rows), RecordDict())
    assert made.items[made.splits[1] :].tolist() == [0, 1, 0, 1]
    assert made.rows[made.splits[1] :].sum(axis=1).tolist() == [32, 1, 32, 1]


def test_its_window_and_its_memory(monkeypatch):
    def remember(view):
        view.memory["rounds"] = torch.cat(
            [view.memory.get("rounds", torch.empty(0)), torch.tensor([view.round])]
        )
        return torch.ones_like(view.model)

    state, attack = RecordDict(), Custom(do=remember, start_round=2)
    sizes = [len(item_upload(monkeypatch, attack, state, server_round=r)[2].items) for r in (1, 2, 3)]
    assert sizes[0] < sizes[1] == sizes[2]
    assert attack.seen[-1].memory["rounds"].tolist() == [2, 3]
