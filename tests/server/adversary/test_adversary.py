"""The adversary around our strategies, Flower's own, and a user's."""

import numpy as np
import pytest
import torch
from flwr.common import ArrayRecord
from flwr.serverapp import strategy as flwr_strategy
from small import Target, model

from byzflower.attacks import (
    ALIE,
    IPM,
    AttackView,
    CollusiveAttack,
    Knowledge,
    Mimic,
    OptimalALIE,
    OptimalIPM,
    alie,
)
from byzflower.clients import cohort_client_app, numpy_client_app
from byzflower.flower.compat import array_record
from byzflower.server import Adversary, InlineGrid
from byzflower.server.adversary.diagnostics import diagnose
from byzflower.strategies import AggregationResult, FedAvg, Krum, Median, RobustStrategy
from flower import begin_round, plain_reply

pytestmark = pytest.mark.compat

NODES = [11, 12, 13, 14, 15]


def replies(values, ids=False, sizes=None):
    return [
        plain_reply(
            node,
            {k: np.full_like(v, value) for k, v in model().items()},
            sizes[i] if sizes else 10,
            {"client-id": i} if ids else {},
        )
        for i, (node, value) in enumerate(zip(NODES, values, strict=True))
    ]


def aggregate(strategy, values, ids=False, server_round=1):
    begin_round(strategy, model(), NODES, server_round)
    arrays, _ = strategy.aggregate_train(server_round, replies(values, ids))
    return arrays["w"].numpy()[0, 0]


def options():
    return {"fraction_evaluate": 0.0, "min_available_nodes": 5, "min_train_nodes": 5}


@pytest.mark.parametrize("ids", [True, False], ids=["named clients", "ordinary Flower clients"])
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: FedAvg(**options()), (2 * -10 * 4 + 3 + 4 + 5) / 5),
        (lambda: flwr_strategy.FedAvg(**options()), (2 * -10 * 4 + 3 + 4 + 5) / 5),
        (lambda: Median(**options()), 3),
        (lambda: flwr_strategy.FedMedian(**options()), 3),
        (lambda: flwr_strategy.FedTrimmedAvg(beta=0.2, **options()), (-40 + 3 + 4) / 3),
    ],
    ids=["FedAvg", "Flower's FedAvg", "Median", "Flower's FedMedian", "Flower's FedTrimmedAvg"],
)
def test_ipm_by_hand(make, expected, ids):
    # Models are 0 - g: benign clients at 3, 4, 5, so the attackers go to -eps * 4 = -40.
    adversary = Adversary(make(), IPM(eps=10), num_byzantine=2)
    assert aggregate(adversary, [1, 2, 3, 4, 5], ids) == pytest.approx(expected)


def test_flower_own_strategies_end_to_end():
    for strategy in (flwr_strategy.FedAvg(**options()), flwr_strategy.FedMedian(**options())):
        app = cohort_client_app(lambda client, config, context: Target(float(client + 1)))
        grid = InlineGrid(app, 5)
        adversary = Adversary(strategy, IPM(eps=10), num_byzantine=1)
        result = adversary.start(grid, array_record(model()), num_rounds=2)
        grid.close()
        values = result.arrays["w"].numpy()
        # FedAvg: first -35 and 2..5, then relative to where it is; FedMedian: the middle benign one.
        middle = float(np.median([-35, 2, 3, 4, 5]))
        if isinstance(strategy, flwr_strategy.FedMedian):
            np.testing.assert_allclose(values, middle)
        else:
            after_one = (-35 + 14) / 5
            lie = after_one - 10 * (3.5 - after_one)
            np.testing.assert_allclose(values, (lie + 14) / 5, rtol=1e-5)


class Spy(CollusiveAttack):
    """Keeps what it was shown."""

    views: list[AttackView] = []  # noqa: RUF012

    def craft(self, view):
        self.views.append(view)
        return torch.zeros(view.num_byzantine, view.benign.shape[1])


@pytest.mark.parametrize(("knowledge", "rows"), [("omniscient", [-3, -4, -5]), ("colluding", [-1, -2])])
def test_what_the_attack_sees(knowledge, rows):
    Spy.views.clear()
    adversary = Adversary(Median(**options()), Spy(knowledge=knowledge), num_byzantine=2)
    aggregate(adversary, [1, 2, 3, 4, 5])
    begin_round(adversary, {k: v + 3 for k, v in model().items()}, NODES, 2)
    adversary.aggregate_train(2, replies([4, 5, 6, 7, 8]))
    first, second = Spy.views
    assert first.benign[:, 0].tolist() == rows
    assert first.previous_aggregate is None
    assert second.previous_aggregate.tolist() == [-3.0] * 12
    assert second.benign[:, 0].tolist() == rows
    assert (first.num_byzantine, first.num_clients, second.round) == (2, 5, 2)


def test_outside_of_its_window_everybody_is_honest():
    adversary = Adversary(FedAvg(**options()), IPM(eps=10, start_round=2, stop_round=2), num_byzantine=2)
    assert aggregate(adversary, [1, 2, 3, 4, 5], server_round=1) == 3
    assert aggregate(adversary, [1, 2, 3, 4, 5], server_round=2) < 0
    assert aggregate(adversary, [1, 2, 3, 4, 5], server_round=3) == 3


def test_any_set_of_clients_may_be_byzantine():
    adversary = Adversary(FedAvg(**options()), IPM(eps=10), byzantine=[0, 4])
    assert aggregate(adversary, [1, 2, 3, 4, 5], ids=True) == pytest.approx((2 * -30 + 9) / 5)


def test_replies_that_are_no_uploads_are_left_to_the_strategy():
    adversary = Adversary(Median(**options()), ALIE(), num_byzantine=2)
    begin_round(adversary, model(), NODES)
    garbage = plain_reply(15, {"x": np.zeros(3)})
    adversary.aggregate_train(1, [*replies([1, 2, 3, 4, 5])[:4], garbage])
    assert [client for client, _ in adversary.strategy.last_round.rejections] == [15]


def test_alie_reaches_the_strategy_as_crafted():
    adversary = Adversary(FedAvg(**options()), ALIE(z=1.5), num_byzantine=2)
    benign = torch.tensor([[-3.0], [-4.0], [-5.0]])
    expected = (2 * -alie(benign, 1.5).item() + 12) / 5
    assert aggregate(adversary, [1, 2, 3, 4, 5]) == pytest.approx(expected)


def test_weights_and_metrics_of_the_byzantine_clients_stay():
    adversary = Adversary(FedAvg(**options()), IPM(eps=1), num_byzantine=1)
    begin_round(adversary, model(), NODES)
    arrays, _ = adversary.aggregate_train(1, replies([0, 4, 4, 4, 4], sizes=[60, 10, 10, 10, 10]))
    assert arrays["w"].numpy()[0, 0] == pytest.approx(0.6 * -4 + 0.4 * 4)


def test_our_numpy_clients_under_flower_own_strategy_in_cohorts():
    """A cohort's reply is taken apart for a strategy that knows nothing of cohorts."""
    app = cohort_client_app(
        lambda client, config, context: Target(float(client)),
        lambda config, context: [2 * context.node_config["partition-id"] + i for i in (0, 1)],
    )
    grid = InlineGrid(app, 3)
    strategy = flwr_strategy.FedAvg(fraction_evaluate=0.0, min_available_nodes=3, min_train_nodes=3)
    adversary = Adversary(strategy, IPM(eps=10), num_byzantine=1)
    result = adversary.start(grid, array_record(model()), num_rounds=1)
    grid.close()
    np.testing.assert_allclose(result.arrays["w"].numpy(), (-30 + 15) / 6, rtol=1e-6)


def test_an_ordinary_client_needs_no_id():
    app = numpy_client_app(lambda context: Target(float(context.node_config["partition-id"])))
    grid = InlineGrid(app, 4)
    adversary = Adversary(Median(min_available_nodes=4, fraction_evaluate=0.0), IPM(eps=10), num_byzantine=1)
    result = adversary.start(grid, ArrayRecord(list(model().values())), num_rounds=1)
    grid.close()
    assert result.arrays["0"].numpy()[0, 0] == 1.5


def test_either_a_number_or_a_set():
    for wrong in ({}, {"num_byzantine": 1, "byzantine": [0]}):
        with pytest.raises(ValueError, match="either num_byzantine or byzantine"):
            Adversary(Median(), IPM(), **wrong)


def test_knowledge_is_typed():
    assert IPM(knowledge="colluding").knowledge is Knowledge.COLLUDING


def test_the_attack_sees_the_models_tensors():
    Spy.views.clear()
    aggregate(Adversary(Median(**options()), Spy(), num_byzantine=2), [1, 2, 3, 4, 5])
    tensors = Spy.views[0].tensors
    assert [(t.name, t.shape, t.columns) for t in tensors] == [
        ("w", (2, 4), slice(0, 8)),
        ("b", (4,), slice(8, 12)),
    ]


def test_the_previous_aggregate_is_told_from_the_step_size_of_its_round():
    Spy.views.clear()
    strategy = Median(server_lr=0.5, **options())
    adversary = Adversary(strategy, Spy(), num_byzantine=2)
    aggregate(adversary, [1, 2, 3, 4, 5])
    strategy.server_lr = 0.05  # decayed after the first round
    begin_round(adversary, {k: v + 3 for k, v in model().items()}, NODES, 2)
    adversary.aggregate_train(2, replies([4, 5, 6, 7, 8]))
    assert Spy.views[1].previous_aggregate.tolist() == [-6.0] * 12


class Counter(RobustStrategy):
    """A rule with a state of its own: how often it was applied."""

    def __init__(self, **options):
        super().__init__(**options)
        self.applied = 0

    def aggregate(self, gradients, weights):
        self.applied += 1
        return AggregationResult(weights.to(gradients.dtype) @ gradients.matrix())

    def state_dict(self):
        return {**super().state_dict(), "applied": np.array(self.applied)}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.applied = int(state["applied"])


class Asking(CollusiveAttack):
    """Asks what the server would do."""

    answers: list = []  # noqa: RUF012

    def craft(self, view):
        crafted = torch.full((view.num_byzantine, view.benign.shape[1]), 9.0)
        if view.aggregate is not None:
            self.answers.append(view.aggregate(crafted))
        return crafted


def test_an_attack_may_try_the_servers_own_rule():
    """With the sizes that clients claim, the rows in the clients' order, and no trace left behind."""
    Asking.answers.clear()
    strategy = Counter(max_client_weight=0.5, **options())
    adversary = Adversary(strategy, Asking(), byzantine=[1, 3])
    begin_round(adversary, model(), NODES)
    arrays, _ = adversary.aggregate_train(1, replies([1, 2, 3, 4, 5], True, sizes=[90, 10, 10, 10, 10]))
    expected = -(0.5 * -1 + 0.125 * (9 - 3 + 9 - 5))
    assert arrays["w"].numpy()[0, 0] == pytest.approx(expected)
    assert Asking.answers[0].tolist() == pytest.approx([-expected] * 12)
    assert strategy.applied == 1


@pytest.mark.parametrize(
    ("strategy", "attack"),
    [
        (lambda: Median(**options()), Asking(knowledge="colluding")),
        (lambda: flwr_strategy.FedMedian(**options()), Asking()),
    ],
)
def test_a_rule_that_is_not_known_cannot_be_tried(strategy, attack):
    Asking.answers.clear()
    aggregate(Adversary(strategy(), attack, num_byzantine=2), [1, 2, 3, 4, 5])
    assert Asking.answers == []


def test_a_rule_with_too_few_clients_answers_nothing():
    Asking.answers.clear()
    aggregator = Adversary(Krum(num_byzantine=2, **options()), Asking(), num_byzantine=2)
    begin_round(aggregator, model(), NODES)
    aggregator.aggregate_train(1, replies([1, 2, 3, 4, 5]))
    assert Asking.answers[0].isnan().all()


@pytest.mark.parametrize("attack", [OptimalALIE(), OptimalIPM()])
def test_optimal_attacks_go_farther_than_a_mild_one(attack):
    optimal = aggregate(Adversary(Median(**options()), attack, num_byzantine=2), [0, 0, 3, 4, 5])
    assert abs(optimal - 4) >= 1 - 1e-6  # the median of two attackers and 3, 4, 5 reaches 3 or 5


def test_what_an_attack_learnt_survives_a_restart():
    def adversary():
        return Adversary(Median(**options()), Mimic(warmup=5), num_byzantine=2)

    def play(adversary, rounds):
        return [aggregate(adversary, [1, 2, 3, 4 + r, 5 - r], server_round=r) for r in rounds]

    whole, first, second = adversary(), adversary(), adversary()
    expected = play(whole, range(1, 6))
    got = play(first, range(1, 3))
    state = {name: np.array(value) for name, value in first.state_dict().items()}
    second.load_state_dict(list(model()), list(model().values()), state)
    assert got + play(second, range(3, 6)) == expected
    for name, value in whole.state_dict().items():
        assert np.array_equal(value, second.state_dict()[name])
    assert {"memory.centre", "memory.direction", "memory.rounds"} <= whole.state_dict().keys()


def slow_cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) if np.any(a) and np.any(b) else 0.0


def test_diagnostics_by_definition():
    random = np.random.default_rng(0)
    benign, byzantine = random.normal(size=(6, 30)) + 1, random.normal(size=(3, 30))
    byzantine[0] = 0
    previous, after = random.normal(size=(2, 30))
    got = diagnose(*map(torch.from_numpy, (benign, byzantine, previous, after)))
    mean = benign.mean(axis=0)
    u = np.median(benign, axis=0) - mean
    kept = benign[np.argsort(-(benign @ u))[:3]]  # n - 2f of n = 9, f = 3
    extent = max(((a - b) ** 2).sum() for a in kept for b in kept)
    assert got == pytest.approx(
        {
            "cos-attack-mean": np.mean([slow_cosine(row, mean) for row in byzantine]),
            "cos-attack-previous": np.mean([slow_cosine(row, previous) for row in byzantine]),
            "cos-benign-previous": np.mean([slow_cosine(row, previous) for row in benign]),
            "perturbation": np.mean([np.linalg.norm(row - mean) for row in byzantine]),
            "skew": ((kept.mean(axis=0) - mean) ** 2).sum() / extent,
            "error": np.linalg.norm(after - mean),
        }
    )


def test_diagnostics_say_what_can_be_said():
    one = torch.ones(1, 4)
    assert diagnose(one, one[:0], None, None) == {"skew": 0.0}
    assert diagnose(one, one.repeat(2, 1), None, one[0]) == pytest.approx(
        {"cos-attack-mean": 1.0, "perturbation": 0.0, "error": 0.0}
    )


@pytest.mark.parametrize("ours", [True, False])
def test_the_adversary_measures_its_attack_if_asked(ours):
    strategy = (FedAvg if ours else flwr_strategy.FedAvg)(**options())
    adversary = Adversary(strategy, IPM(eps=2), num_byzantine=2, diagnostics=True)
    aggregate(adversary, [1, 2, 3, 4, 5])
    assert adversary.info == pytest.approx(
        {
            "cos-attack-mean": -1,
            "perturbation": 12 * 12**0.5,
            "skew": 0.0,
            "error": 4.8 * 12**0.5,  # the aggregate is 0.8, the honest mean -4
        }
    )
    assert adversary.seconds.keys() == {"attack", "diagnostics"}
    quiet = Adversary(FedAvg(**options()), IPM(eps=2), num_byzantine=2)
    aggregate(quiet, [1, 2, 3, 4, 5])
    assert quiet.info == {}


def test_without_an_attack_the_adversary_only_looks_on():
    """LOCAL and DATA attacks are the clients' own work; what they upload is measured all the same."""
    adversary = Adversary(FedAvg(**options()), None, num_byzantine=2, diagnostics=True)
    assert aggregate(adversary, [-1, -1, 3, 4, 5]) == 2
    assert adversary.info["cos-attack-mean"] == pytest.approx(-1)
    assert adversary.info["error"] == pytest.approx(2 * 12**0.5)
