"""Whatever nodes say, every client that was asked is in the record once, and nobody pays for another."""

import math
import time

import numpy as np
import pytest
from flwr.common import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from byzflower.strategies import FedAvg, Median
from byzflower.strategies.items import ItemMedian
from byzflower.uploads.codec import FAILED
from byzflower.uploads.roster import ClaimRoster, Said
from flower import FixedGrid, begin_round, plain_reply, reply_from

pytestmark = pytest.mark.compat

MODEL = {"w": np.zeros(2, np.float32)}
GOOD, BAD = np.ones(2, np.float32), np.full(2, np.nan, np.float32)
NODES = [101, 102, 103, 104, 105]
COUNT = 2  # clients on a node of a cohort
IDS = st.sampled_from([0, 1, 2, 3, 4, 5, 9, 77, *NODES, 2**64 - 1])


def single(node, w=GOOD, size=10, **metrics):
    return plain_reply(node, {"w": w}, size, {key.replace("_", "-"): value for key, value in metrics.items()})


def cohort(node, ids, rows=None, failed=(), sizes=None):
    rows = np.ones((len(ids), 2), np.float32) if rows is None else rows
    metrics = {"client-id": list(ids), "num-examples": sizes or [10.0] * len(ids)}
    content = {"arrays": ArrayRecord({"rows": Array(rows)}), "metrics": MetricRecord(metrics)}
    if failed:
        content[FAILED] = ConfigRecord({str(client): "lies" for client in failed})
    return reply_from(node, RecordDict(content))


def once(record):
    """The accepted and the quarantined clients, each named once."""
    everybody = [*record.clients, *(client for client, _ in record.rejections)]
    assert len(set(everybody)) == len(everybody), record
    return set(record.clients), {client for client, _ in record.rejections}


@st.composite
def hostile_singles(draw, node):
    """Replies of a node that is one client: some, all or none of them well-formed."""
    reply = st.one_of(
        st.builds(lambda c: single(node, client_id=c), IDS),
        st.builds(lambda c: single(node, BAD, client_id=c), IDS),
        st.builds(lambda c: single(node, size=-1, client_id=c), IDS),
        st.builds(lambda c, d: cohort(node, [c, d]), IDS, IDS),
        st.builds(lambda c, d: cohort(node, [c], failed=[d]), IDS, IDS),
        st.builds(lambda: reply_from(node, RecordDict())),
    )
    return draw(st.lists(reply, max_size=2))


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_attackers_remove_nobody_but_themselves(data):
    """Nodes 101 to 103 are clients 0 to 2 and benign; the others claim what they like, from the start."""
    strategy = FedAvg(max_skipped_rounds=9)
    owned = {}
    for server_round in range(1, data.draw(st.integers(2, 4))):
        begin_round(strategy, MODEL, NODES, server_round)
        replies = [single(node, client_id=i) for i, node in enumerate(NODES[:3])]
        for node in (*NODES[3:], 999):  # the last was never asked
            replies += data.draw(hostile_singles(node))
        strategy.aggregate_train(server_round, data.draw(st.permutations(replies)))
        accepted, quarantined = once(strategy.last_round)
        assert len(accepted) + len(quarantined) == len(NODES)
        assert len(accepted) >= 3
        for i, node in enumerate(NODES[:3]):
            (own,) = {i, node} & accepted - set(owned.values())
            assert owned.get(node, own) == own or own == i
        assert quarantined <= {*NODES[3:], *owned.values()}
        owned |= {owner: client for client, owner in strategy.roster._owner.items() if owner in NODES[3:]}


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_ids_that_were_accepted_stay_whoever_claims_them(data):
    strategy = FedAvg()
    begin_round(strategy, MODEL, NODES)
    strategy.aggregate_train(1, [single(node, client_id=i) for i, node in enumerate(NODES)])
    assert once(strategy.last_round) == ({0, 1, 2, 3, 4}, set())
    begin_round(strategy, MODEL, NODES, 2)
    replies = [single(node, client_id=i) for i, node in enumerate(NODES[:3])]
    for node in NODES[3:]:
        replies += data.draw(hostile_singles(node))
    strategy.aggregate_train(2, data.draw(st.permutations(replies)))
    accepted, quarantined = once(strategy.last_round)
    assert accepted | quarantined == {0, 1, 2, 3, 4}
    assert quarantined <= {3, 4}


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_cohort_answers_for_its_own_clients_alone(data):
    n = COUNT * len(NODES)
    strategy = FedAvg(num_clients=n, fraction_train=0.8, max_skipped_rounds=9)
    messages = begin_round(strategy, MODEL, NODES)
    asked = {m.metadata.dst_node_id: m.content["config"]["client-ids"] for m in messages}
    hostile = NODES[3:]
    replies = [cohort(node, clients) for node, clients in asked.items() if node not in hostile]
    for node in (*hostile, 999):
        for _ in range(data.draw(st.integers(0, 2))):
            ids = data.draw(st.lists(st.integers(0, n + 1), max_size=4))
            sizes = [data.draw(st.sampled_from([10.0, -1.0, math.nan])) for _ in ids]
            rows = np.array([data.draw(st.sampled_from([GOOD, BAD])) for _ in ids], np.float32)
            failed = data.draw(st.sets(st.integers(0, n + 1), max_size=3))
            replies.append(cohort(node, ids, rows.reshape(-1, 2), failed, sizes))
    strategy.aggregate_train(1, data.draw(st.permutations(replies)))
    accepted, quarantined = once(strategy.last_round)
    assert accepted | quarantined == {client for clients in asked.values() for client in clients}
    assert quarantined <= {client for node in hostile for client in asked.get(node, [])}
    assert {node for node, _ in strategy.last_round.ignored} <= {*hostile, 999}


def test_of_two_that_claim_an_id_nobody_loses_an_upload():
    strategy = Median()
    for server_round, rivals, expected in ((1, {7}, [101, 102, 103]), (2, set(), [7, 101, 103])):
        begin_round(strategy, MODEL, [101, 102, 103], server_round)
        replies = [single(102, client_id=7), single(103)]
        strategy.aggregate_train(
            server_round, [single(101, **({"client_id": 7} if rivals else {})), *replies]
        )
        assert strategy.last_round.clients == expected
        assert strategy.last_round.rejections == []
    # from now on it is the owner's
    begin_round(strategy, MODEL, [101, 102, 103, 104], 3)
    strategy.aggregate_train(3, [single(104, client_id=7), *replies, single(101)])
    assert strategy.last_round.clients == [7, 101, 103, 104]
    assert strategy.last_round.ignored == [
        (104, "claims to be client 7, which is node 102; known by its node id")
    ]


@pytest.mark.parametrize("spoilt", [single(101, BAD, client_id=7), single(101, size=0, client_id=7)])
def test_what_is_quarantined_owns_no_id(spoilt):
    strategy = Median()
    begin_round(strategy, MODEL, [101, 102])
    strategy.aggregate_train(1, [spoilt, single(102)])
    assert once(strategy.last_round) == ({102}, {101})
    begin_round(strategy, MODEL, [101, 102, 103], 2)
    strategy.aggregate_train(2, [spoilt, single(102), single(103, client_id=7)])
    accepted, quarantined = once(strategy.last_round)
    assert quarantined == {101}
    assert len(accepted) == 2


def test_clients_known_by_their_nodes_may_call_themselves_anything():
    strategy = Median(identity="node")
    for server_round in (1, 2):
        begin_round(strategy, MODEL, [101, 102], server_round)
        strategy.aggregate_train(
            server_round, [single(101, client_id=102), single(102, client_id=server_round)]
        )
        assert once(strategy.last_round) == ({101, 102}, set())
        assert strategy.last_round.ignored == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"identity": "name"}, "identity must be claimed or node, got 'name'"),
        ({"identity": "node", "num_clients": 4}, "with num_clients .* identity must be claimed, got 'node'"),
    ],
)
def test_identity_is_checked(options, text):
    with pytest.raises(ValueError, match=text):
        Median(**options)


def test_who_was_not_asked_is_not_heard():
    strategy = Median()
    begin_round(strategy, MODEL, [101, 102])
    strategy.aggregate_train(1, [single(101), single(999), single(999, client_id=5), single(102)])
    assert once(strategy.last_round) == ({101, 102}, set())
    assert strategy.last_round.ignored == [(999, "was not asked this round")]
    begin_round(strategy, MODEL, [101, 102, 103], 2)
    strategy.aggregate_train(2, [single(101), single(102), single(103, client_id=5)])
    assert strategy.last_round.clients == [5, 101, 102]


@pytest.mark.parametrize("first", [GOOD, BAD], ids=["good first", "bad first"])
def test_of_two_replies_the_first_counts(first):
    strategy = Median()
    begin_round(strategy, MODEL, [101, 102])
    second = BAD if first is GOOD else GOOD
    strategy.aggregate_train(1, [single(101, first), single(102), single(101, second)])
    assert once(strategy.last_round) == (({101, 102}, set()) if first is GOOD else ({102}, {101}))
    assert strategy.last_round.ignored == [(101, "replied 2 times, of which the first counts")]


def test_a_client_that_its_own_node_reports_as_failed_has_no_upload():
    strategy = Median(num_clients=4)
    begin_round(strategy, MODEL, [101, 102])
    strategy.aggregate_train(1, [cohort(101, [0, 1], failed=[1]), cohort(102, [2, 3])])
    assert strategy.last_round.clients == [0, 2, 3]
    assert strategy.last_round.rejections == [(1, "lies")]


MANY = 100_000


@pytest.mark.parametrize(
    "flood",
    [
        lambda node: cohort(node, range(10**6, 10**6 + MANY)),
        lambda node: cohort(node, [0] * MANY),
        lambda node: cohort(node, [], failed=range(MANY)),
        lambda node: cohort(node, range(MANY), np.zeros((1, 2), np.float32)),
        lambda node: cohort(node, range(MANY), sizes=[-1.0] * MANY),
    ],
    ids=["unknown ids", "one id", "failed clients", "ids alone", "bad sizes"],
)
@pytest.mark.parametrize("cohorts", [None, 4], ids=["ordinary nodes", "cohorts"])
def test_a_flood_of_ids_is_one_line(flood, cohorts, caplog):
    strategy = Median(num_clients=cohorts)
    begin_round(strategy, MODEL, [101, 102])
    benign = cohort(102, [2, 3]) if cohorts else single(102)
    reply = flood(101)
    caplog.clear()
    started = time.process_time()
    strategy.aggregate_train(1, [reply, benign])
    assert time.process_time() - started < 5
    once(strategy.last_round)
    assert len(strategy.last_round.rejections) <= 2
    assert len(strategy.last_round.ignored) <= 1
    assert len(caplog.records) <= 3
    assert max(len(record.getMessage()) for record in caplog.records) < 500
    strategy.configure_evaluate(1, ArrayRecord(), ConfigRecord(), FixedGrid([101, 102]))
    caplog.clear()
    strategy.aggregate_evaluate(1, [reply, benign])
    assert len(caplog.records) <= 3


def test_evaluations_are_heard_by_the_same_rules():
    strategy = Median()
    begin_round(strategy, MODEL, [101, 102, 103])
    good = [single(node, loss=1.0) for node in (101, 102)]
    liar = [single(103, loss=9.0), single(103, loss=100.0), single(999, loss=100.0)]
    average = strategy.aggregate_evaluate(1, [*good, *liar])
    assert dict(average) == {"loss": pytest.approx(11 / 3)}
    strategy.aggregate_evaluate(1, [single(103, loss=1.0, client_id=5)])
    begin_round(strategy, MODEL, [101, 102, 103], 2)
    strategy.aggregate_train(2, [single(101, client_id=5), *good[1:]])
    assert 5 in strategy.last_round.clients  # an evaluation takes no id


@pytest.mark.parametrize("odd", [10**400, math.nan, math.inf], ids=["huge", "nan", "inf"])
def test_odd_metrics_of_one_client_are_its_own_affair(odd):
    strategy = Median(num_clients=3)
    begin_round(strategy, MODEL, [101])
    reply = cohort(101, [0, 1, 2])
    reply.content["metrics"]["loss"] = [1, 3, odd] if isinstance(odd, int) else [1.0, 3.0, odd]
    _, metrics = strategy.aggregate_train(1, [reply])
    assert once(strategy.last_round) == ({0, 1, 2}, set())
    assert metrics["loss"] == 2.0
    assert strategy.aggregate_evaluate(1, [reply])["loss"] == 2.0


def test_true_is_no_id():
    reply = cohort(101, [1, 0])
    reply.content["metrics"]["client-id"] = [1, True]
    strategy = Median(num_clients=2)
    begin_round(strategy, MODEL, [101])
    strategy.aggregate_train(1, [reply])
    assert strategy.last_round.rejections == [(c, "client-id is not a non-negative integer") for c in (0, 1)]


def test_ids_of_nodes_come_first():
    """A node that connects later gets its own id back from one that has called itself so."""
    roster = ClaimRoster()
    roster.meet([101])
    roster.ask({101: [101]})
    assert roster.hear({101: Said([102], [])}).heard == {101: {0: 102}}
    roster.settle([102], [])
    roster.meet([101, 102])
    roster.ask({101: [101], 102: [102]})
    said = {node: Said([102], []) for node in (101, 102)}
    assert roster.hear(said).heard == {101: {0: 101}, 102: {0: 102}}


def test_rules_per_item_take_ids_of_any_size():
    strategy = ItemMedian()
    begin_round(strategy, {"table": np.zeros((3, 2), np.float32)}, [101, 102])
    rows = {"items": np.array([0], np.int32), "rows": np.ones((1, 2), np.float32)}
    replies = [plain_reply(node, rows, 1, {"client-id": own}) for node, own in ((101, 2**64 - 1), (102, 0))]
    arrays, _ = strategy.aggregate_train(1, replies)
    assert strategy.last_round.clients == [0, 2**64 - 1]
    np.testing.assert_array_equal(arrays["table"].numpy(), [[-1, -1], [0, 0], [0, 0]])
