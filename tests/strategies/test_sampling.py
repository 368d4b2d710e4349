"""Which logical clients a round asks."""

import pytest
from small import model

from byzflower.server.config.classification import RunConfig
from byzflower.strategies import Median
from byzflower.uploads.base import CLIENT_IDS
from flower import begin_round


def asked(strategy, server_round, nodes=(3, 8)):
    messages = begin_round(strategy, model(), nodes, server_round)
    return [client for m in messages for client in m.content.config_records["config"][CLIENT_IDS]]


def sampled(**options):
    """A round's clients, per round."""
    strategy = Median(num_clients=15, fraction_train=0.4, seed=1, **options)
    return [asked(strategy, server_round) for server_round in range(1, 9)]


def test_a_share_of_all_clients_is_drawn_anew_every_round():
    rounds = sampled()
    assert {len(set(clients)) for clients in rounds} == {6}
    assert len({frozenset(clients) for clients in rounds}) > 1
    assert sampled() == rounds


def test_strata_are_drawn_from_in_proportion():
    strata = [{2, 7, 9, 11, 14}, set(range(15)) - {2, 7, 9, 11, 14}]
    rounds = sampled(strata=strata)
    assert {len(strata[0].intersection(clients)) for clients in rounds} == {2}
    assert {len(set(clients)) for clients in rounds} == {6}
    assert set().union(*rounds) > strata[0]
    assert {len(strata[0].intersection(clients)) for clients in sampled()} != {2}


@pytest.mark.parametrize("strata", [[{0, 1}], [{0, 1, 2}, {2, 3}], [{0, 1, 2, 3, 4}]])
def test_strata_must_be_a_partition(strata):
    with pytest.raises(ValueError, match="strata must hold each of the 4 logical clients once"):
        Median(num_clients=4, strata=strata)


def test_balanced_sampling_keeps_f_the_same():
    options = {"clients": 15, "byzantine": 5, "fraction_train": 0.4, "byzantine_set": "random"}
    config = RunConfig.make({**options, "strategy": "median", "balanced_sampling": True})
    strategy = config.make_strategy()
    for server_round in range(1, 9):
        clients = asked(strategy, server_round)
        assert len(clients) == config.clients_per_round == 6
        assert len(config.byzantine_ids().intersection(clients)) == 2
    alone = RunConfig.make({**options, "strategy": "median", "balanced_sampling": True, "attack": "none"})
    assert len(asked(alone.make_strategy(), 1)) == 6
