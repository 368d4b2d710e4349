"""Uploads as Flower messages: encoding by clients, and decoding of untrusted replies by the server."""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from flwr.common import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode

from byzflower.flower.compat import DecodeError, R, array_record, array_view, records_of
from byzflower.flower.text import error_text, plain
from byzflower.uploads.base import (
    CLIENT_ID,
    NUM_EXAMPLES,
    Ignored,
    Rejected,
    Rejection,
    Upload,
    check_num_examples,
    is_client_id,
    number,
)
from byzflower.uploads.kind import UploadKind
from byzflower.uploads.layout import Layout
from byzflower.uploads.roster import Hearing, ReplyFault, Roster, Said

H = TypeVar("H", bound=Hashable)

MAX_METRICS = 1000
MAX_NAME = 100
FAILED = "failed-clients"
_MAX_DIGITS = 20  # of an id below 2**64
# What the SuperLink and the SuperNodes report; everything else is what a ClientApp raised.
_ERRORS = {
    ErrorCode.LOAD_CLIENT_APP_EXCEPTION: "its ClientApp cannot be loaded",
    ErrorCode.MESSAGE_UNAVAILABLE: "no usable reply",
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE: "no usable reply",
    ErrorCode.NODE_UNAVAILABLE: "no reply",
    ErrorCode.CLIENT_APP_CRASHED: "client crashed",
}


def encode_upload(
    upload: Upload, layout: Layout, failed: Mapping[int, str] | None = None, *, cohort: bool
) -> RecordDict:
    """Make a reply's content.

    A single client's reply is what any Flower client would send; a cohort's carries its clients' ids,
    sizes and metrics (those that most of them have; NaN where one has none) as lists, and names the
    clients that failed with the reason.
    """
    failed = failed or {}
    metrics = MetricRecord()
    if cohort:
        metrics[CLIENT_ID] = list(upload.client_ids)
        metrics[NUM_EXAMPLES] = [float(n) for n in upload.num_examples]
        for key in most_have(upload.metrics):
            metrics[key] = [float(m.get(key, math.nan)) for m in upload.metrics]
    else:
        metrics[CLIENT_ID] = upload.client_ids[0]
        metrics[NUM_EXAMPLES] = float(upload.num_examples[0])
        metrics.update({k: float(v) for k, v in upload.metrics[0].items()})
    arrays = array_record(upload.payload(layout, cohort=cohort))
    content = RecordDict({"arrays": arrays, "metrics": metrics})
    if failed:
        content[FAILED] = ConfigRecord({str(client): plain(reason) for client, reason in failed.items()})
    return content


def decode_reply(
    message: Message, kind: UploadKind, layout: Layout, weighted_by_key: str = NUM_EXAMPLES
) -> tuple[Upload | None, list[ReplyFault]]:
    """Decode one untrusted reply.

    Returns:
        The upload of the clients in it whose form is right (None if there are none) and a fault for
        every client whose form is not. Values are checked later, as are claims of ids.
    """
    try:
        content, node = _content_of(message), message.metadata.src_node_id
        return _decode_content(content, node, kind, layout, weighted_by_key)
    except Exception as error:  # nothing that a client sends may end a run
        return None, [_whole_fault(error)]


def _content_of(message: Message) -> RecordDict:
    if message.has_error():
        what = _ERRORS.get(message.error.code, "client raised")
        raise Rejected(f"{what}: {plain(message.error.reason)}")
    if not message.has_content():
        raise Rejected("empty reply")
    return message.content


def _whole_fault(error: Exception) -> ReplyFault:
    known = isinstance(error, Rejected | DecodeError)
    return ReplyFault(None, plain(error) if known else f"cannot be decoded: {error_text(error)}")


class ClientMetrics(NamedTuple):
    """What the MetricRecord of a reply says about the k clients in it.

    Attributes:
        cohort: whether the reply is a cohort's (lists) or one client's (numbers).
        client_ids: k ids.
        num_examples: k numbers of examples, or the reason why one is not believable.
        metrics: k dictionaries with the other metrics, the first `MAX_METRICS` of them, under names in
            plain text; NaN where a value is no number.
    """

    cohort: bool
    client_ids: list[int]
    num_examples: list[float | Rejected]
    metrics: list[dict[str, float]]

    def believable(self) -> tuple[dict[int, float], list[ReplyFault]]:
        """Positions and sizes of the clients whose size is believable, and what is wrong with the others'."""
        sizes: dict[int, float] = {}
        faults = []
        for position, size in enumerate(self.num_examples):
            if isinstance(size, Rejected):
                faults.append(ReplyFault(self.client_ids[position], str(size)))
            else:
                sizes[position] = size
        return sizes, faults


def decode_metrics(content: RecordDict, node: int, weighted_by_key: str = NUM_EXAMPLES) -> ClientMetrics:
    """Decode the one MetricRecord of an untrusted reply.

    Raises:
        Rejected: none or several, no weight, or lists of different lengths.
    """
    metrics = _only(content, MetricRecord)
    if weighted_by_key not in metrics:
        raise Rejected(f"no {weighted_by_key!r} in the MetricRecord")
    claimed = metrics.get(CLIENT_ID, node)
    cohort = isinstance(claimed, list)
    ids: list[Any] = list(claimed) if isinstance(claimed, list) else [claimed]
    if not all(map(is_client_id, ids)):
        raise Rejected("client-id is not a non-negative integer")
    if isinstance(metrics[weighted_by_key], list) != cohort:
        raise Rejected(f"{weighted_by_key!r} does not have one value for each client")
    # A single client's lists are Flower's to allow; they cannot be averaged and are left out.
    columns: dict[str, list[Any]] = {
        key: list(value) if isinstance(value, list) else [value]
        for key, value in metrics.items()
        if isinstance(value, list) == cohort
    }
    if any(len(column) != len(ids) for column in columns.values()):
        raise Rejected(f"metrics do not have one value for each of {len(ids)} clients")
    others = [key for key in columns if key not in (weighted_by_key, CLIENT_ID)][:MAX_METRICS]
    names = {key: plain(key, MAX_NAME) for key in others}
    return ClientMetrics(
        cohort,
        ids,
        [_num_examples_or_fault(value) for value in columns[weighted_by_key]],
        [{names[key]: number(columns[key][i]) for key in others} for i in range(len(ids))],
    )


def _num_examples_or_fault(value: object) -> float | Rejected:
    try:
        return check_num_examples(value)
    except Rejected as fault:
        return fault


def _decode_content(
    content: RecordDict, node: int, kind: UploadKind, layout: Layout, weighted_by_key: str
) -> tuple[Upload | None, list[ReplyFault]]:
    record = _only(content, ArrayRecord)
    clients = decode_metrics(content, node, weighted_by_key)
    sizes, faults = clients.believable()
    limit = max(layout.width * layout.row_dtype.itemsize * len(clients.client_ids), 8 * layout.width)
    upload = kind.decode(
        {name: array_view(array, limit) for name, array in record.items()},
        layout,
        clients.client_ids,
        np.array([sizes.get(i, 1.0) for i in range(len(clients.client_ids))]),
        clients.metrics,
        cohort=clients.cohort,
    )
    return select(upload, list(sizes)), _failed_clients(content) + faults


def select(upload: Upload, keep: Sequence[int]) -> Upload | None:
    """Return the clients at positions `keep` of an upload (views where possible), None if empty."""
    if len(keep) == len(upload):
        return upload if keep else None
    return upload.take(list(keep)) if keep else None


class Collected(NamedTuple):
    """The decoded replies of a round.

    Attributes:
        uploads: well-formed ones, of distinct clients.
        rejections: every other client that was asked, once, and why.
        ignored: what nodes sent without effect.
    """

    uploads: list[Upload]
    rejections: list[Rejection]
    ignored: list[Ignored]


@dataclass
class Evaluations:
    """The evaluations of a model by k clients.

    Attributes:
        client_ids: k ids.
        scores: k sizes, and the metrics that go with them.
    """

    client_ids: list[int]
    scores: list[tuple[float, dict[str, float]]]


def decode_evaluation(
    message: Message, weighted_by_key: str = NUM_EXAMPLES
) -> tuple[Evaluations | None, list[ReplyFault]]:
    """Decode one untrusted reply that is metrics alone; see `decode_reply`."""
    try:
        clients = decode_metrics(_content_of(message), message.metadata.src_node_id, weighted_by_key)
        sizes, faults = clients.believable()
        scores = [(size, clients.metrics[i]) for i, size in sizes.items()]
        return Evaluations([clients.client_ids[i] for i in sizes], scores), faults
    except Exception as error:  # nothing that a client sends may end a run
        return None, [_whole_fault(error)]


def collect_uploads(
    replies: Iterable[Message],
    kind: UploadKind,
    layout: Layout,
    roster: Roster,
    weighted_by_key: str = NUM_EXAMPLES,
) -> Collected:
    """Decode a round's replies: each client is heard once, from the node that speaks for it."""
    decoded, hearing = _listen(replies, lambda m: decode_reply(m, kind, layout, weighted_by_key), roster)
    uploads = []
    for node, clients in hearing.heard.items():
        kept = select(decoded[node], list(clients)) if clients else None
        if kept is not None:
            kept.client_ids = list(clients.values())
            uploads.append(kept)
    return Collected(uploads, hearing.rejections + hearing.silent, hearing.ignored)


def collect_evaluations(
    replies: Iterable[Message], roster: Roster, weighted_by_key: str = NUM_EXAMPLES
) -> tuple[list[tuple[float, dict[str, float]]], list[Rejection], list[Ignored]]:
    """Decode the replies to an evaluation: each client's size and metrics, or what is wrong with them.

    Clients that did not reply are left out.
    """
    decoded, hearing = _listen(replies, lambda m: decode_evaluation(m, weighted_by_key), roster)
    scores = [decoded[node].scores[i] for node, clients in hearing.heard.items() for i in clients]
    return scores, hearing.rejections, hearing.ignored


class _Part(Protocol):
    client_ids: list[int]


P = TypeVar("P", bound=_Part)


def _listen(
    replies: Iterable[Message],
    decode: Callable[[Message], tuple[P | None, list[ReplyFault]]],
    roster: Roster,
) -> tuple[dict[int, P], Hearing]:
    """Decode the first reply of every node that was asked, and attribute what is in it to clients."""
    by_node: dict[int, list[Message]] = {}
    for reply in replies:
        by_node.setdefault(reply.metadata.src_node_id, []).append(reply)
    said: dict[int, Said] = {}
    decoded: dict[int, P] = {}
    ignored = []
    for node, own in sorted(by_node.items()):
        if node not in roster.asked:
            ignored.append(Ignored(node, "was not asked this round"))
            continue
        if len(own) > 1:
            ignored.append(Ignored(node, f"replied {len(own)} times, of which the first counts"))
        part, faults = decode(own[0])
        said[node] = Said([] if part is None else part.client_ids, faults)
        if part is not None:
            decoded[node] = part
    hearing = roster.hear(said)
    return decoded, hearing._replace(ignored=ignored + hearing.ignored)


def _only(content: RecordDict, kind: type[R]) -> R:
    records = records_of(content, kind)
    if len(records) != 1:
        raise Rejected(f"expected one {kind.__name__}, got {len(records)}")
    return next(iter(records.values()))


def _failed_clients(content: RecordDict) -> list[ReplyFault]:
    failed = records_of(content, ConfigRecord).get(FAILED, ConfigRecord())
    if not all(client.isdecimal() and len(client) <= _MAX_DIGITS for client in failed):
        raise Rejected("failed clients are not named by integers")
    return [ReplyFault(int(client), plain(reason)) for client, reason in failed.items()]


def most_have(collections: Sequence[Iterable[H]]) -> list[H]:
    """The items that more than half of the collections contain, in order of first appearance."""
    counts = Counter(item for own in collections for item in own)
    return [item for item, count in counts.items() if 2 * count > len(collections)]
