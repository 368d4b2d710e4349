"""Every kind of hostile reply, alone and inside a cohort: quarantined by name, and the round goes on."""

import io
import re

import numpy as np
import pytest
from flwr.common import Array, ArrayRecord, ConfigRecord, Error, MetricRecord, RecordDict
from flwr.common import Message as FlowerMessage
from flwr.common.constant import ErrorCode

from byzflower.strategies import FedAvg, Krum, Median, MultiKrum, TooManySkippedRounds, TrimmedMean
from byzflower.strategies.base import RoundTooLarge
from byzflower.uploads import Broadcast, DenseUpload, Gradients, Layout, encode_upload
from flower import begin_round, plain_reply, reply_from

pytestmark = pytest.mark.compat

MODEL = {"w": np.zeros((2, 3), np.float32), "b": np.ones(3, np.float32)}
HONEST = {"w": np.full((2, 3), 0.5, np.float32), "b": np.full(3, 0.75, np.float32)}
STRATEGIES = [
    FedAvg,
    Median,
    lambda: TrimmedMean(num_byzantine=1),
    lambda: Krum(num_byzantine=1),
    lambda: MultiKrum(num_byzantine=1),
]


def raw(array: np.ndarray, payload: bytes, stype: str = "numpy.ndarray") -> Array:
    return Array(dtype=str(array.dtype), shape=tuple(array.shape), stype=stype, data=payload)


def npy(array, **kwargs) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **kwargs)
    return buffer.getvalue()


def with_w(w):
    return lambda node: plain_reply(node, {**HONEST, "w": w})


def w_payload(payload, **kwargs):
    return lambda node: plain_reply(node, {**HONEST, "w": raw(HONEST["w"], payload, **kwargs)})


def failed(node):
    instruction = reply_from(node, RecordDict())
    reply = FlowerMessage.__new__(FlowerMessage)
    reply.__dict__.update(instruction.__dict__)
    reply.__dict__["_content"] = None
    reply.__dict__["_error"] = Error(code=0, reason="ValueError: boom")
    return reply


nan = HONEST["w"].copy()
nan[0, 0] = np.nan
inf = HONEST["w"].copy()
inf[1, 2] = -np.inf

HOSTILE = {
    "raised": (failed, "client raised: ValueError: boom"),
    "empty": (lambda node: reply_from(node, RecordDict()), "expected one ArrayRecord, got 0"),
    "missing array": (lambda node: plain_reply(node, {"w": HONEST["w"]}), "missing arrays 'b'"),
    "extra array": (lambda node: plain_reply(node, {**HONEST, "x": HONEST["b"]}), "unexpected arrays 'x'"),
    "reordered": (lambda node: plain_reply(node, {"b": HONEST["b"], "w": HONEST["w"]}), "another order"),
    "wrong shape": (with_w(np.zeros((3, 2), np.float32)), r"shape \(3, 2\), expected \(2, 3\)"),
    "broadcastable shape": (with_w(np.zeros((1, 3), np.float32)), r"shape \(1, 3\)"),
    "scalar": (with_w(np.zeros((), np.float32)), r"shape \(\)"),
    "float64": (with_w(HONEST["w"].astype(np.float64)), "dtype float64, expected float32"),
    "complex": (with_w(HONEST["w"].astype(np.complex64)), "dtype complex64"),
    "integers": (with_w(HONEST["w"].astype(np.int32)), "dtype int32"),
    "NaN": (with_w(nan), "NaN or Inf"),
    "Inf": (with_w(inf), "NaN or Inf"),
    "garbage bytes": (w_payload(b"\x93garbage"), "not a NumPy array"),
    "no bytes": (w_payload(b""), "not a NumPy array"),
    "truncated": (w_payload(npy(HONEST["w"])[:-3]), "do not hold"),
    "too long": (w_payload(npy(HONEST["w"]) + b"0" * 100), "do not hold"),
    "huge": (w_payload(npy(np.zeros(10**6, np.float32))), "at most"),
    "pickle": (w_payload(npy(np.array([{}], dtype=object), allow_pickle=True)), "dtype object"),
    "claims another shape": (w_payload(npy(np.zeros(7, np.float32))), r"shape \(7,\)"),
    "absurdly long shape": (
        w_payload(
            b"\x93NUMPY\x01\x00\x00\x0f{'descr':'<f4','fortran_order':False,'shape':(0x"
            + b"f" * 3780
            + b",)}"
        ),
        "header|not a NumPy array",
    ),
    "an archive": (w_payload(b"PK\x03\x04" + b"0" * 50), "not a NumPy array"),
    "unknown serialisation": (w_payload(npy(HONEST["w"]), stype="pickle"), "unknown serialisation"),
    "two array records": (
        lambda node: reply_from(
            node,
            RecordDict(
                {
                    "a": ArrayRecord(list(HONEST.values())),
                    "b": ArrayRecord(list(HONEST.values())),
                    "metrics": MetricRecord({"num-examples": 1}),
                }
            ),
        ),
        "one ArrayRecord, got 2",
    ),
    "no metrics": (
        lambda node: reply_from(node, RecordDict({"arrays": ArrayRecord(list(HONEST.values()))})),
        "one MetricRecord, got 0",
    ),
    "no num-examples": (lambda node: plain_reply(node, HONEST, None, {"x": 1}), "no 'num-examples'"),
    "negative size": (lambda node: plain_reply(node, HONEST, -1000), "num-examples is -1000"),
    "zero size": (lambda node: plain_reply(node, HONEST, 0), "num-examples is 0"),
    "NaN size": (lambda node: plain_reply(node, HONEST, float("nan")), "num-examples is nan"),
    "infinite size": (lambda node: plain_reply(node, HONEST, float("inf")), "num-examples is inf"),
    "absurd size": (lambda node: plain_reply(node, HONEST, 10**15), "num-examples is 1000000000000000"),
    "list of sizes": (lambda node: plain_reply(node, HONEST, [1, 2]), "one value for each client"),
    "negative id": (
        lambda node: plain_reply(node, HONEST, 1, {"client-id": -1}),
        "not a non-negative integer",
    ),
    "float id": (lambda node: plain_reply(node, HONEST, 1, {"client-id": 0.5}), "not a non-negative integer"),
    "many clients in one": (
        lambda node: reply_from(
            node,
            encode_upload(
                DenseUpload([7, 8], np.ones(2), [{}, {}], np.zeros((2, 9), np.float32)),
                Layout.of(MODEL),
                cohort=True,
            ),
        ),
        "one node claims to be 2 clients",
    ),
}


@pytest.mark.parametrize("make", STRATEGIES, ids=["fedavg", "median", "trimmedmean", "krum", "multikrum"])
@pytest.mark.parametrize("case", HOSTILE)
def test_one_hostile_client_is_quarantined_and_the_round_goes_on(case, make):
    hostile, reason = HOSTILE[case]
    strategy = make()
    begin_round(strategy, MODEL, [1, 2, 3, 4, 5, 6])
    honest = [plain_reply(node, HONEST, 10, {"client-id": node}) for node in (1, 2, 3, 4, 5)]
    arrays, _metrics = strategy.aggregate_train(1, [*honest[:2], hostile(6), *honest[2:]])
    for name, value in HONEST.items():
        np.testing.assert_allclose(arrays[name].numpy(), value, rtol=1e-6)
    assert strategy.last_round.clients == [1, 2, 3, 4, 5]
    ((_, said),) = strategy.last_round.rejections
    assert re.search(reason, said), said


COHORT = {
    "NaN": (lambda rows, m: rows.__setitem__((1, 0), np.nan), "NaN or Inf"),
    "Inf": (lambda rows, m: rows.__setitem__((1, 3), np.inf), "NaN or Inf"),
    "negative size": (lambda rows, m: m["num-examples"].__setitem__(1, -5.0), "num-examples is -5"),
    "NaN size": (lambda rows, m: m["num-examples"].__setitem__(1, float("nan")), "num-examples is nan"),
    "absurd size": (lambda rows, m: m["num-examples"].__setitem__(1, 1e12), "num-examples is 1"),
    "duplicate id": (
        lambda rows, m: m["client-id"].__setitem__(1, 0),
        "speaks more than once for one client",
    ),
    "unknown id": (lambda rows, m: m["client-id"].__setitem__(1, 77), "not asked of it: 77"),
    "another node's id": (lambda rows, m: m["client-id"].__setitem__(1, 5), "not asked of it: 5"),
}


def cohort_reply(strategy, node, clients, change=None):
    rows = np.tile(np.array([0.5] * 6 + [0.75] * 3, np.float32), (len(clients), 1))
    metrics = {"client-id": list(clients), "num-examples": [10.0] * len(clients)}
    if change:
        change(rows, metrics)
    return reply_from(
        node,
        RecordDict({"arrays": ArrayRecord({"rows": Array(rows)}), "metrics": MetricRecord(metrics)}),
    )


@pytest.mark.parametrize("case", COHORT)
def test_one_hostile_client_inside_a_cohort(case):
    change, reason = COHORT[case]
    strategy = MultiKrum(num_byzantine=1, num_clients=8)
    messages = begin_round(strategy, MODEL, [101, 102])
    asked = {m.metadata.dst_node_id: m.content["config"]["client-ids"] for m in messages}
    assert asked == {101: [0, 1, 2, 3], 102: [4, 5, 6, 7]}
    replies = [cohort_reply(strategy, 102, asked[102]), cohort_reply(strategy, 101, asked[101], change)]
    arrays, _ = strategy.aggregate_train(1, replies)
    np.testing.assert_allclose(arrays["w"].numpy(), HONEST["w"], rtol=1e-6)
    assert strategy.last_round.clients == [0, 2, 3, 4, 5, 6, 7]
    ((client, said),) = strategy.last_round.rejections
    assert client == 1
    assert reason in said


def test_a_client_that_was_not_asked_cannot_answer():
    strategy = Median(num_clients=8, fraction_train=0.5)
    messages = begin_round(strategy, MODEL, [101])
    asked = messages[0].content["config"]["client-ids"]
    uninvited = min(set(range(8)) - set(asked))
    strategy.aggregate_train(1, [cohort_reply(strategy, 101, [*asked, uninvited])])
    assert strategy.last_round.clients == asked
    assert strategy.last_round.rejections == []
    assert strategy.last_round.ignored == [
        (101, f"speaks for clients that were not asked of it: {uninvited}")
    ]


def test_a_silent_node_is_named():
    strategy = Median(num_clients=8)
    begin_round(strategy, MODEL, [101, 102])
    strategy.aggregate_train(1, [cohort_reply(strategy, 101, [0, 1, 2, 3])])
    assert strategy.last_round.rejections == [(c, "no reply in time") for c in (4, 5, 6, 7)]
    assert strategy.last_round.clients == [0, 1, 2, 3]


def test_a_cohort_names_its_failed_clients():
    strategy = Median(num_clients=4)
    begin_round(strategy, MODEL, [101])
    upload = DenseUpload([0, 2], np.ones(2), [{}, {}], np.zeros((2, 9), np.float32))
    content = encode_upload(upload, Layout.of(MODEL), {1: "client raised: boom", 3: "wrong"}, cohort=True)
    strategy.aggregate_train(1, [reply_from(101, content)])
    assert strategy.last_round.rejections == [(1, "client raised: boom"), (3, "wrong")]
    assert strategy.last_round.clients == [0, 2]


def test_all_clients_of_a_cohort_failed():
    strategy = Median(num_clients=2)
    begin_round(strategy, MODEL, [101])
    nobody = DenseUpload([], np.zeros(0), [], np.zeros((0, 9), np.float32))
    content = encode_upload(nobody, Layout.of(MODEL), {0: "a", 1: "b"}, cohort=True)
    arrays, _ = strategy.aggregate_train(1, [reply_from(101, content)])
    assert arrays is None
    assert strategy.last_round.rejections == [(0, "a"), (1, "b")]


@pytest.mark.parametrize(
    "rows",
    [np.zeros((3, 9), np.float32), np.zeros((2, 8), np.float32), np.zeros((2, 9)), np.zeros(18, np.float32)],
    ids=["too many rows", "too few columns", "float64", "flat"],
)
def test_a_cohort_matrix_of_another_form_costs_the_whole_cohort(rows):
    strategy = Median(num_clients=4)
    begin_round(strategy, MODEL, [101, 102])
    content = RecordDict(
        {
            "arrays": ArrayRecord({"rows": Array(rows)}),
            "metrics": MetricRecord({"client-id": [0, 1], "num-examples": [1.0, 1.0]}),
        }
    )
    arrays, _ = strategy.aggregate_train(1, [reply_from(101, content), cohort_reply(strategy, 102, [2, 3])])
    assert arrays is not None
    assert [client for client, _ in strategy.last_round.rejections] == [0, 1]


def test_too_few_left_keeps_the_model_and_then_ends_with_the_reason():
    strategy = Krum(num_byzantine=1, max_skipped_rounds=2)
    for server_round in (1, 2):
        begin_round(strategy, MODEL, [1, 2, 3, 4, 5], server_round)
        replies = [plain_reply(node, HONEST) for node in (1, 2, 3, 4)]
        if server_round == 1:
            assert strategy.aggregate_train(server_round, replies)[0] is None
            assert "Krum needs n > 2f + 2, got n=4, f=1" in strategy.last_round.skipped
        else:
            with pytest.raises(TooManySkippedRounds, match=r"2 rounds in a row .*n=4, f=1"):
                strategy.aggregate_train(server_round, replies)


def test_a_node_cannot_change_its_id():
    strategy = Median()
    begin_round(strategy, MODEL, [1, 2, 3])
    strategy.aggregate_train(1, [plain_reply(n, HONEST, 1, {"client-id": n}) for n in (1, 2, 3)])
    begin_round(strategy, MODEL, [1, 2, 3], 2)
    strategy.aggregate_train(2, [plain_reply(n, HONEST, 1, {"client-id": n + (n == 3)}) for n in (1, 2, 3)])
    assert strategy.last_round.rejections == [(3, "node was client 3 before, now claims to be 4")]


def test_a_claimed_size_is_capped():
    strategy = FedAvg(max_client_weight=0.5)
    begin_round(strategy, MODEL, [1, 2, 3])
    liar = {"w": np.full((2, 3), 100, np.float32), "b": HONEST["b"]}
    arrays, _ = strategy.aggregate_train(
        1, [plain_reply(1, HONEST, 10), plain_reply(2, HONEST, 10), plain_reply(3, liar, 10**9)]
    )
    np.testing.assert_allclose(arrays["w"].numpy(), 50.25, rtol=1e-5)


def test_metrics_of_liars_do_not_spoil_the_average():
    strategy = Median()
    begin_round(strategy, MODEL, [1, 2, 3, 4])
    metrics = [{"loss": 1.0}, {"loss": 3.0}, {"loss": float("nan")}, {"other": 1.0}]
    replies = [plain_reply(n, HONEST, 10, m) for n, m in enumerate(metrics, 1)]
    _, average = strategy.aggregate_train(1, replies)
    # Two of four report a finite loss: not most of them.
    assert "other" not in average
    _, average = strategy.aggregate_train(1, replies[:3])
    assert average["loss"] == 2.0


def test_hostile_evaluation():
    strategy = Median()
    begin_round(strategy, MODEL, [1, 2])
    good = [
        reply_from(n, RecordDict({"metrics": MetricRecord({"num-examples": 5, "loss": 1.0})}))
        for n in (1, 2, 3)
    ]
    bad = [
        failed(4),
        reply_from(5, RecordDict()),
        reply_from(6, RecordDict({"metrics": MetricRecord({"loss": 1.0})})),
        reply_from(7, RecordDict({"metrics": MetricRecord({"num-examples": -5, "loss": 1e9})})),
        reply_from(8, RecordDict({"metrics": MetricRecord({"num-examples": 5, "loss": float("inf")})})),
        reply_from(9, RecordDict({"c": ConfigRecord({"x": 1})})),
    ]
    assert dict(strategy.aggregate_evaluate(1, [*bad, *good])) == {"loss": 1.0}


def test_lists_among_the_metrics_of_an_ordinary_client_are_left_out():
    strategy = Median()
    begin_round(strategy, MODEL, [1, 2])
    _, metrics = strategy.aggregate_train(
        1, [plain_reply(n, HONEST, 5, {"curve": [1.0, 2.0], "loss": 1.0}) for n in (1, 2)]
    )
    assert strategy.last_round.rejections == []
    assert dict(metrics) == {"loss": 1.0}


@pytest.mark.parametrize("huge", [10**400, 1.7e308, -1e308, -1e39], ids=lambda x: f"{x!s:.5}")
def test_huge_metrics_are_left_out(huge):
    strategy = Median()
    begin_round(strategy, MODEL, [1, 2, 3])
    metrics = [{"loss": 1.0}, {"loss": huge}, {"loss": 3.0}]
    arrays, average = strategy.aggregate_train(
        1, [plain_reply(n, HONEST, 1, own) for n, own in enumerate(metrics, 1)]
    )
    assert arrays is not None
    assert dict(average) == {"loss": 2.0}
    replies = [
        reply_from(n, RecordDict({"metrics": MetricRecord({"num-examples": 5, **own})}))
        for n, own in enumerate(metrics, 1)
    ]
    assert dict(strategy.aggregate_evaluate(1, replies)) == {"loss": 2.0}
    _, average = strategy.aggregate_train(1, [plain_reply(n, HONEST, 1, metrics[1]) for n in (1, 2, 3)])
    assert dict(average) == {}


def test_an_absurd_size_or_id_never_ends_a_round():
    strategy = Median()
    begin_round(strategy, MODEL, [1, 2, 3, 4])
    odd = [plain_reply(2, HONEST, 10**400), plain_reply(3, HONEST, 1, {"client-id": 10**400})]
    arrays, _ = strategy.aggregate_train(1, [plain_reply(1, HONEST), *odd, plain_reply(4, HONEST, 10**5000)])
    assert arrays is not None
    assert strategy.last_round.clients == [1]
    said = dict(strategy.last_round.rejections)
    assert said.keys() == {2, 3, 4}
    assert "num-examples is 1000" in said[2]
    assert "client-id" in said[3]
    evaluations = [
        reply_from(n, RecordDict({"metrics": MetricRecord({"num-examples": size, "loss": 1.0})}))
        for n, size in enumerate((5, 10**400, 10**5000), 1)
    ]
    assert dict(strategy.aggregate_evaluate(1, evaluations)) == {"loss": 1.0}


def test_the_truth_is_no_client():
    """In Python True is the integer 1."""
    strategy = Median()
    begin_round(strategy, MODEL, [1, 2])
    forged = plain_reply(2, HONEST, 1, {"client-id": 1})
    forged.content["metrics"].__dict__["_data"]["client-id"] = True
    strategy.aggregate_train(1, [plain_reply(1, HONEST, 1, {"client-id": 1}), forged])
    assert strategy.last_round.rejections == [(2, "client-id is not a non-negative integer")]


def test_names_of_metrics_are_few_short_and_plain():
    strategy = Median()
    begin_round(strategy, MODEL, [1, 2, 3])
    names = {f"{i}\x1b\n" + "a" * 500: 1.0 for i in range(5000)}
    _, average = strategy.aggregate_train(1, [plain_reply(n, HONEST, 1, names) for n in (1, 2, 3)])
    assert 0 < len(average) <= 1000
    assert all(name.isprintable() and len(name) <= 100 for name in average)


def test_reasons_are_plain_text_whoever_wrote_them():
    evil = "\x1b[31m\nWARNING: forged\u202e\ud800" + "a" * 10_000
    strategy = Median(num_clients=4)
    begin_round(strategy, MODEL, [101, 102])
    nobody = DenseUpload([], np.zeros(0), [], np.zeros((0, 9), np.float32))
    content = encode_upload(nobody, Layout.of(MODEL), {0: "x", 1: "y"}, cohort=True)
    content["failed-clients"] = ConfigRecord({"0": evil, "1": "y"})
    error = failed(102)
    error.__dict__["_error"] = Error(code=0, reason=evil)
    strategy.aggregate_train(1, [reply_from(101, content), error])
    said = dict(strategy.last_round.rejections)
    assert said.keys() == {0, 1, 2, 3}
    assert all(reason.isprintable() and len(reason) <= 300 for reason in said.values())
    assert r"\x1b[31m\nWARNING: forged\u202e\ud800aaa" in said[0]


def test_one_client_of_a_cohort_cannot_take_its_metrics_away():
    for cohort in ([0, 1, 2, 3], [0, 1]):
        strategy = Median(num_clients=len(cohort))
        begin_round(strategy, MODEL, [101])
        metrics = [{"loss": 2.0} for _ in cohort]
        metrics[0] = {"other": 1.0}
        rows = np.zeros((len(cohort), 9), np.float32)
        upload = DenseUpload(cohort, np.ones(len(cohort)), metrics, rows)
        content = encode_upload(upload, Layout.of(MODEL), cohort=True)
        _, average = strategy.aggregate_train(1, [reply_from(101, content)])
        assert dict(average) == ({"loss": 2.0} if len(cohort) == 4 else {})


def test_nobody_can_reserve_ids_for_later():
    strategy = Median()
    for server_round in (1, 2, 3):
        begin_round(strategy, MODEL, [1, 2, 9], server_round)
        strategy.aggregate_train(server_round, [plain_reply(9, HONEST, 1, {"client-id": server_round})])
    begin_round(strategy, MODEL, [1, 2, 3, 9], 4)
    strategy.aggregate_train(4, [plain_reply(n, HONEST, 1, {"client-id": n}) for n in (2, 3)])
    assert strategy.last_round.clients == [2, 3]


def test_a_node_that_comes_back_as_another_gets_its_id_back():
    strategy = Median()
    for server_round, nodes in ((1, (1, 2, 3)), (2, (1, 2, 3, 9)), (3, (1, 2, 9))):
        begin_round(strategy, MODEL, nodes, server_round)
        replies = [plain_reply(n, HONEST, 1, {"client-id": 3 if n == 9 else n}) for n in nodes if n != 3]
        strategy.aggregate_train(
            server_round, replies + [plain_reply(3, HONEST, 1, {"client-id": 3})] * (3 in nodes)
        )
        assert strategy.last_round.rejections == []
        assert strategy.last_round.clients == ([1, 2, 3] if server_round != 2 else [1, 2, 3, 9])


@pytest.mark.parametrize("cohorts", [None, 5], ids=["ordinary nodes", "cohorts"])
def test_a_round_that_would_need_too_much_memory_is_refused_before_it_begins(cohorts):
    begin_round(strategy := Median(num_clients=cohorts), MODEL, [1, 2, 3, 4, 5])
    needed = strategy.round_bytes(5)
    for limit in (0, needed):
        begin_round(Median(max_round_bytes=limit, num_clients=cohorts), MODEL, [1, 2, 3, 4, 5])
    strategy = Median(max_round_bytes=needed - 1, num_clients=cohorts)
    text = f"a round of 5 clients needs {needed} bytes .*max_round_bytes={needed - 1}; ask fewer"
    with pytest.raises(RoundTooLarge, match=text):
        begin_round(strategy, MODEL, [1, 2, 3, 4, 5])
    with pytest.raises(ValueError, match="max_round_bytes must not be negative, got -1"):
        Median(max_round_bytes=-1)


@pytest.mark.parametrize("code", [ErrorCode.NODE_UNAVAILABLE, ErrorCode.CLIENT_APP_CRASHED])
def test_what_flower_reports_is_not_blamed_on_the_clients_code(code):
    strategy = Median()
    begin_round(strategy, MODEL, [1, 2, 3])
    reply = failed(3)
    reply.__dict__["_error"] = Error(code=code, reason="no heartbeat")
    strategy.aggregate_train(1, [plain_reply(1, HONEST), plain_reply(2, HONEST), reply])
    ((client, said),) = strategy.last_round.rejections
    assert client == 3
    assert said.endswith(": no heartbeat")
    assert "raised" not in said


def test_one_client_with_nan_changes_nothing_but_its_own_row():
    rows = np.arange(20, dtype=np.float32).reshape(5, 4)
    layout = Layout.of({"w": np.zeros(4, np.float32)})
    for bad in (0, 2, 4):
        own = rows.copy()
        own[bad, 1] = np.nan
        uploads = [
            Gradients().decode({"w": own[i]}, layout, [10 + i], np.ones(1), [{}], cohort=False)
            for i in range(5)
        ]
        matrix = Gradients().rows(uploads, Broadcast(layout, np.zeros(4, np.float32)), 1.0)
        keep = [i for i in range(5) if i != bad]
        assert matrix.client_ids == [10 + i for i in keep]
        np.testing.assert_array_equal(matrix.rows.numpy(), rows[keep])


def test_nobody_can_have_others_quarantined():
    strategy = Median(num_clients=4)
    begin_round(strategy, MODEL, [101, 102])
    honest = cohort_reply(strategy, 101, [0, 1])
    rows = DenseUpload([2], np.ones(1), [{}], np.zeros((1, 9), np.float32))
    forged = encode_upload(rows, Layout.of(MODEL), {0: "lies", 3: "really failed"}, cohort=True)
    strategy.aggregate_train(1, [honest, reply_from(102, forged)])
    assert strategy.last_round.clients == [0, 1, 2]
    assert strategy.last_round.rejections == [(3, "really failed")]


def test_one_node_cannot_outvote_the_others_in_evaluation():
    strategy = Median()
    begin_round(strategy, MODEL, [1, 2, 3])
    good = [
        reply_from(n, RecordDict({"metrics": MetricRecord({"num-examples": 5, "loss": 1.0})})) for n in (1, 2)
    ]
    many = {"client-id": list(range(1000)), "num-examples": [1e9] * 1000, "loss": [0.0] * 1000}
    metrics = strategy.aggregate_evaluate(1, [*good, reply_from(3, RecordDict({"m": MetricRecord(many)}))])
    assert dict(metrics) == {"loss": 1.0}


BATCH_NORM = {
    "bn.weight": np.ones(2, np.float32),
    "bn.running_var": np.ones(2, np.float32),
    "bn.num_batches_tracked": np.array(7, np.int64),
}


@pytest.mark.parametrize("make", STRATEGIES[1:], ids=["median", "trimmedmean", "krum", "multikrum"])
def test_batch_norm_statistics_are_defended_too(make):
    strategy = make()
    begin_round(strategy, BATCH_NORM, [1, 2, 3, 4, 5])
    liar = {
        **BATCH_NORM,
        "bn.running_var": np.full(2, -1e18, np.float32),
        "bn.num_batches_tracked": np.array(2**62),
    }
    arrays, _ = strategy.aggregate_train(
        1,
        [plain_reply(n, {**BATCH_NORM, "bn.running_var": np.full(2, 2, np.float32)}) for n in (2, 3, 4, 5)]
        + [plain_reply(1, liar)],
    )
    if strategy.last_round.selected != [1]:  # Krum may pick anyone of equals
        np.testing.assert_array_equal(arrays["bn.running_var"].numpy(), [2, 2])
        assert arrays["bn.num_batches_tracked"].numpy() == 7


def test_clients_of_a_vanished_node_move_to_another():
    strategy = Median(num_clients=6)
    begin_round(strategy, MODEL, [101, 102, 103])
    messages = begin_round(strategy, MODEL, [101, 103, 104], 2)
    asked = {m.metadata.dst_node_id: m.content["config"]["client-ids"] for m in messages}
    assert asked == {101: [0, 1], 103: [4, 5], 104: [2, 3]}
