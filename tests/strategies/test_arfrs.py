"""A-RFRS and its siblings: what they average, whom they leave out, and why."""

import numpy as np
import pytest
import torch
from flwr.common import ArrayRecord, ConfigRecord

from byzflower.flower.compat import array_view, records_of
from byzflower.strategies import (
    AGRFRS,
    ARFRS,
    RRFRS,
    SRFRS,
    GeometricMedian,
    MultiKrum,
    TooFewClients,
    multi_krum,
    norm_trimmed_mean,
)
from byzflower.uploads.layout import Layout
from byzflower.uploads.moments import Moments
from byzflower.uploads.moments_layout import moments_layout
from byzflower.uploads.optimizers import Optimizer
from flower import begin_round, plain_reply

pytestmark = pytest.mark.compat
SIBLINGS = [ARFRS, SRFRS, AGRFRS, RRFRS]


def model():
    random = np.random.default_rng(0)
    return {
        "table": random.normal(size=(6, 4)).astype(np.float32),
        "b": random.normal(size=3).astype(np.float32),
        "bn.running_mean": np.zeros(2, np.float32),
    }


def gradients(n, seed=1):
    g = np.random.default_rng(seed).normal(size=(n, 27)).astype(np.float32) * 0.2 + 1
    g[:, 8:12] = 0  # a row that nobody touches
    g[::2, :4] = 0  # and one that some do not
    return g


def ask(strategy, arrays, nodes, server_round=1):
    """Begin a round; returns the arrays and the config that were sent."""
    (message, *_) = begin_round(strategy, arrays, nodes, server_round)
    sent = {name: array_view(array) for name, array in _arrays(message).items()}
    (config,) = records_of(message.content, ConfigRecord).values()
    return sent, dict(config)


def _arrays(message):
    (record,) = records_of(message.content, ArrayRecord).values()
    return record


def answers(sent, config, gs, sizes, compact=False, buffers=None):
    """Replies of nodes 1, 2, ... that follow the rule with these gradients; also their states."""
    optimizer, t = Optimizer.from_config(config)
    own = moments_layout(Layout.of(sent))
    row = own.full.row(list(sent.values()))
    before = torch.from_numpy(own.state(row).copy())
    rest = optimizer.step(before, torch.zeros(()), t).numpy()
    states, replies = [], []
    for i, g in enumerate(gs):
        state = optimizer.step(before, torch.from_numpy(g), t).numpy()
        states.append(state)
        mine = np.full(2, i, np.float32) if buffers is None else buffers[i]
        arrays = dict(
            zip(own.full.names, own.full.arrays(np.concatenate([state.reshape(-1), mine])), strict=True)
        )
        if compact:
            upload = Moments(optimizer).decode(arrays, own.full, [0], np.ones(1), [{}], cohort=False)
            arrays = upload.without_untouched(rest, own).payload(own.full, cohort=False)
        replies.append(plain_reply(i + 1, arrays, num_examples=sizes[i]))
    return replies, np.stack(states)


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("make", SIBLINGS)
def test_the_servers_averages_are_the_weighted_means_of_theta_and_every_moment(make, compact):
    strategy, arrays, sizes = make(filter=None), model(), np.array([10, 20, 5, 65])
    for server_round in (1, 2, 3):
        sent, config = ask(strategy, arrays, [1, 2, 3, 4], server_round)
        replies, states = answers(sent, config, gradients(4, server_round), sizes.tolist(), compact)
        new, _ = strategy.aggregate_train(server_round, replies)
        assert strategy.last_round.rejections == []
        expected = np.einsum("i,isd->sd", sizes / 100, states.astype(np.float64))
        arrays = {name: array_view(array) for name, array in new.items()}
        assert list(arrays) == list(model())
        got = np.concatenate([arrays["table"].ravel(), arrays["b"]])
        np.testing.assert_allclose(got, expected[0], rtol=1e-6)
        np.testing.assert_allclose(strategy.state_dict()["moments"], expected[1:].ravel(), rtol=1e-6)
        assert arrays["bn.running_mean"].tolist() == [1.5, 1.5]  # the median of the clients'


@pytest.mark.parametrize("make", SIBLINGS)
@pytest.mark.parametrize("inspect", ["gradients", "parameters"])
def test_full_and_compact_uploads_give_the_same_bits(make, inspect):
    outcomes = []
    for compact in (False, True):
        strategy, arrays = make(num_byzantine=1, inspect=inspect), model()
        for server_round in (1, 2):
            sent, config = ask(strategy, arrays, range(1, 7), server_round)
            replies, _ = answers(sent, config, gradients(6, server_round), [10] * 6, compact)
            new, _ = strategy.aggregate_train(server_round, replies[::-1] if compact else replies)
            arrays = {name: array_view(array) for name, array in new.items()}
        outcomes.append([a.tobytes() for a in arrays.values()] + [strategy.state_dict()["moments"].tobytes()])
    assert outcomes[0] == outcomes[1]


def test_one_client_with_all_the_data_takes_its_own_step():
    strategy, g = ARFRS(filter=None, min_train_nodes=1, min_available_nodes=1), gradients(1)
    sent, config = ask(strategy, model(), [1])
    replies, states = answers(sent, config, g, [3])
    new, _ = strategy.aggregate_train(1, replies)
    assert array_view(new["table"]).ravel().tolist() == states[0, 0, :24].tolist()


@pytest.mark.parametrize("make", SIBLINGS)
def test_gradient_ascent_is_left_out_by_krum_on_gradients(make):
    strategy, g = make(num_byzantine=3), gradients(10)
    g[:3] *= -1
    sent, config = ask(strategy, model(), range(1, 11))
    replies, states = answers(sent, config, g, [10] * 10)
    strategy.aggregate_train(1, replies)
    assert strategy.last_round.selected == list(range(4, 11))
    expected = states[3:].mean(axis=0)
    np.testing.assert_allclose(strategy.state_dict()["moments"], expected[1:].ravel(), rtol=1e-5, atol=1e-7)


def test_the_filter_sees_what_the_rule_would_see_dense():
    g = gradients(10)
    for inspect in ("gradients", "parameters"):
        strategy = ARFRS(num_byzantine=3, inspect=inspect)
        sent, config = ask(strategy, model(), range(1, 11))
        replies, states = answers(sent, config, g, [10] * 10, compact=True)
        strategy.aggregate_train(1, replies)
        dense = torch.from_numpy(g if inspect == "gradients" else states[:, 0].copy())
        kept = multi_krum(dense, 3).selected.nonzero().squeeze(1) + 1
        assert strategy.last_round.selected == kept.tolist()


def test_a_rule_that_only_weights_gives_the_weights_of_all_averages():
    strategy = ARFRS(filter="geometricmedian", inspect="parameters")
    sent, config = ask(strategy, model(), range(1, 6))
    replies, states = answers(sent, config, gradients(5), [10] * 5)
    new, _ = strategy.aggregate_train(1, replies)
    weights = np.array(strategy.last_round.weights)
    assert weights.std() > 0
    np.testing.assert_allclose(
        strategy.state_dict()["moments"], np.einsum("i,isd->sd", weights, states)[1:].ravel(), rtol=1e-5
    )
    assert new is not None


def test_uploads_that_break_the_rule_by_one_coordinate_are_named():
    strategy = ARFRS(num_byzantine=1, filter=None)
    sent, config = ask(strategy, model(), range(1, 5))
    replies, _ = answers(sent, config, gradients(4), [10] * 4)
    arrays = {k: np.array(array_view(a)) for k, a in _arrays(replies[2]).items()}
    arrays["moments/v/table"][1, 2] *= 2
    replies[2] = plain_reply(3, arrays)
    arrays = {k: np.array(array_view(a)) for k, a in _arrays(replies[3]).items()}
    arrays["table"][0, 0] = np.nan
    replies[3] = plain_reply(4, arrays)
    strategy.aggregate_train(1, replies)
    assert strategy.last_round.clients == [1, 2]
    assert [(r.client, r.reason) for r in strategy.last_round.rejections] == [
        (3, "breaks the update rule of adam in 1 of 19 coordinates"),
        (4, "breaks the update rule of adam in 1 of 23 coordinates"),
    ]


def tampered(reply, node, name, place, value):
    """A reply of a node with one value changed."""
    arrays = {k: np.array(array_view(a)) for k, a in _arrays(reply).items()}
    arrays[name][place] = value
    return plain_reply(node, arrays)


FILTERS = [None, "multikrum", "mda", "dnc", "geometricmedian", "bulyan", "krum", "normtrimmedmean"]


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize("make", [ARFRS, AGRFRS, RRFRS])
def test_no_claimed_value_moves_the_model_farther_than_a_step(make, filter):
    """One client may pretend whatever it likes: it is quarantined, or its share of a step is all it has."""
    for value in (-1e-30, 1e-3, -1e5, 1e17, -1e18, 1e19, -1e25, 1e25, 3e38):
        for name in ("table", *(f"moments/{slot}/table" for slot in make().upload.optimizer.slots)):
            strategy = make(num_byzantine=1, filter=filter)
            sent, config = ask(strategy, model(), range(1, 10))
            replies, _ = answers(sent, config, gradients(9), [10] * 9)
            replies[2] = tampered(replies[2], 3, name, (1, 2), value)
            new, _ = strategy.aggregate_train(1, replies)
            moved = np.abs(array_view(new["table"]) - model()["table"]).max()
            assert moved <= 4 * strategy.upload.optimizer.lr, (value, name, strategy.last_round.rejections)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("make", SIBLINGS)
def test_a_gradient_too_long_for_the_models_type_is_named(make, dtype):
    arrays = {name: array.astype(dtype) for name, array in model().items()}
    strategy, g = make(num_byzantine=1), gradients(6).astype(dtype)
    g[1, 5:7] = np.sqrt(np.finfo(dtype).max) * 0.8
    sent, config = ask(strategy, arrays, range(1, 7))
    replies, _ = answers(sent, config, g, [10] * 6)
    assert strategy.aggregate_train(1, replies)[0] is not None
    (rejection,) = strategy.last_round.rejections
    assert rejection.client == 2
    assert rejection.reason == f"the squared norm of its recovered gradient overflows {np.dtype(dtype)}"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3.4e38])
def test_buffers_that_are_not_finite_are_named_and_skip_no_round(value):
    strategy, low = ARFRS(num_byzantine=1), np.full(2, -1e38, np.float32)  # 3.4e38 is too far from it
    sent, config = ask(strategy, {**model(), "bn.running_mean": low}, range(1, 7))
    buffers = np.tile(np.arange(6, dtype=np.float32), (2, 1)).T
    buffers[3, 1] = value
    replies, _ = answers(sent, config, gradients(6), [10] * 6, buffers=buffers)
    assert strategy.aggregate_train(1, replies)[0] is not None
    assert strategy.last_round.rejections == [(4, "NaN or Inf in the buffers")]


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize("inspect", ["gradients", "parameters"])
def test_a_round_in_which_nobody_touched_anything_is_a_round(filter, inspect):
    strategy = ARFRS(num_byzantine=1, filter=filter, inspect=inspect)
    sent, config = ask(strategy, model(), range(1, 9))
    replies, states = answers(sent, config, np.zeros((8, 27), np.float32), [10] * 8, compact=True)
    new, _ = strategy.aggregate_train(1, replies)
    assert array_view(new["table"]).ravel().tolist() == states[0, 0, :24].tolist()
    assert strategy.upload.observe(strategy.last_round.clients, [1, 2])["spread-theta"] == 0
    assert {name: len(rows) for name, rows in strategy.upload.views().items()} == {
        "parameters": 8,
        "gradients": 8,
    }


def test_the_uploads_of_a_round_are_let_go_when_the_next_begins():
    strategy = ARFRS()
    sent, config = ask(strategy, model(), range(1, 5))
    replies, _ = answers(sent, config, gradients(4), [10] * 4)
    new, _ = strategy.aggregate_train(1, replies)
    assert strategy.upload.views()
    ask(strategy, {name: array_view(array) for name, array in new.items()}, range(1, 5), 2)
    assert strategy.upload.views() == {}


def test_nobody_left_skips_the_round_and_the_step_is_not_counted():
    strategy = ARFRS(num_byzantine=3)
    sent, config = ask(strategy, model(), range(1, 5))
    replies, _ = answers(sent, config, gradients(4), [10] * 4)
    assert strategy.aggregate_train(1, replies)[0] is None
    assert "MultiKrum needs n > 2f + 2, got n=4, f=3" in strategy.last_round.skipped
    _, config = ask(strategy, model(), range(1, 5), 2)
    assert config["optimizer-step"] == 1


def test_state_survives_a_restart_with_the_same_result():
    first, arrays = ARFRS(filter="multikrum"), model()
    sent, config = ask(first, arrays, range(1, 6))
    replies, _ = answers(sent, config, gradients(5), [10] * 5)
    new, _ = first.aggregate_train(1, replies)
    arrays = {name: array_view(array) for name, array in new.items()}
    second = ARFRS(filter="multikrum")
    second.load_state_dict(first.state_dict())
    sent, config = ask(first, arrays, range(1, 6), 2)
    again, config_again = ask(second, arrays, range(1, 6), 2)
    assert config == config_again
    assert all(sent[name].tobytes() == again[name].tobytes() for name in sent)


def test_options_are_checked_and_errors_name_them():
    for options, text in (
        ({"inspect": "both"}, "inspect must be gradients or parameters, got 'both'"),
        ({"tolerance": 0}, "tolerance must be positive, got 0"),
        ({"filter": "krumm"}, "unknown filter 'krumm'"),
        ({"filter": "arfrs"}, "unknown filter 'arfrs'"),
        ({"upload": "gradient"}, "upload must be weights, got 'gradient'"),
        ({"server_lr": 0.5}, "server_lr must be 1, got 0.5"),
        ({"lr": -1}, "lr must be positive, got -1"),
    ):
        with pytest.raises(ValueError, match=text):
            ARFRS(**options)
    with pytest.raises(ValueError, match="filter Median neither selects nor weights clients"):
        ARFRS(filter="median").apply(torch.zeros(3, 2), torch.full((3,), 1 / 3))
    assert isinstance(ARFRS(filter=GeometricMedian()).filter, GeometricMedian)
    assert isinstance(ARFRS(num_byzantine=0.25).filter, MultiKrum)


def test_the_terms_of_adam_byzantine_resilience_are_those_of_its_definition():
    strategy, g = ARFRS(num_byzantine=2), gradients(8)
    g[:2] *= -3
    sent, config = ask(strategy, model(), range(1, 9))
    replies, states = answers(sent, config, g, [10] * 8, compact=True)
    strategy.aggregate_train(1, replies)
    kept, honest = [client - 1 for client in strategy.last_round.selected], range(2, 8)
    assert len(kept) == 6
    observed = strategy.upload.observe(strategy.last_round.selected, [j + 1 for j in honest])
    for slot, name in enumerate(("theta", "m", "v")):
        expected = sum(np.linalg.norm(states[i, slot] - states[j, slot]) for i in kept for j in honest)
        assert observed[f"spread-{name}"] == pytest.approx(expected, rel=1e-4)


def test_what_the_filter_sees_grows_with_touched_rows_not_with_the_model(monkeypatch):
    arrays, seen = {"table": np.zeros((50_000, 4), np.float32)}, []
    strategy = ARFRS(num_byzantine=1)
    monkeypatch.setattr(
        strategy, "apply", lambda rows, w: seen.append(rows.shape) or ARFRS.apply(strategy, rows, w)
    )
    sent, config = ask(strategy, arrays, range(1, 7))
    g = np.zeros((6, 200_000), np.float32)
    for i in range(6):
        g[i, 400 * i : 400 * i + 8] = 1
    replies, _ = answers(sent, config, g, [10] * 6, compact=True, buffers=np.empty((6, 0), np.float32))
    strategy.aggregate_train(1, replies)
    assert seen == [(6, 6 * 8)]
    assert strategy.last_round.bytes_up < 6 * 200


def test_norm_trimmed_mean_drops_the_longest_and_the_shortest():
    x = torch.tensor([[3.0, 0], [0, 1], [2, 0], [0, 9], [0, 4]])
    result = norm_trimmed_mean(x, 1)
    assert result.selected.tolist() == [True, False, True, False, True]
    assert result.gradient.tolist() == pytest.approx([5 / 3, 4 / 3])
    assert norm_trimmed_mean(x, 0).selected.all()
    with pytest.raises(TooFewClients, match="NormTrimmedMean needs n > 2f, got n=5, f=3"):
        norm_trimmed_mean(x, 3)
