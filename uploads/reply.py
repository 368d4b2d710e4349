"""Uploads in Flower's Message dialect: encoding for clients, suspicious decoding for servers."""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from flwr.common import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode

from byzflower.uploads.base import (
    CLIENT_ID,
    NUM_EXAMPLES,
    Rejected,
    Rejection,
    Upload,
    UploadFormat,
    check_num_examples,
    is_client_id,
    number,
)
from byzflower.uploads.flower_compat import DecodeError, R, array_record, array_view, records_of
from byzflower.uploads.layout import Layout
from byzflower.uploads.text import error_text, plain

H = TypeVar("H", bound=Hashable)

MAX_METRICS = 1000
MAX_NAME = 100
FAILED = "failed-clients"
# What the SuperLink and the SuperNodes report; everything else is what a ClientApp raised.
_ERRORS = {
    ErrorCode.LOAD_CLIENT_APP_EXCEPTION: "its ClientApp cannot be loaded",
    ErrorCode.MESSAGE_UNAVAILABLE: "no usable reply",
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE: "no usable reply",
    ErrorCode.NODE_UNAVAILABLE: "no reply",
    ErrorCode.CLIENT_APP_CRASHED: "client crashed",
}


class Roster:
    """Who may speak for which logical client.

    With an assignment (simulated cohorts), a node answers for exactly the clients it was given.
    Without one (ordinary Flower), a node is one client: the id it names first, if any, is its own for
    the rest of the run and nobody else's; a node that names none is known by its node id.
    """

    def __init__(self, assignment: Mapping[int, Sequence[int]] | None = None):
        self.assigned = assignment is not None
        self._asked: frozenset[int] | None = None
        self._clients = {node: list(clients) for node, clients in (assignment or {}).items()}
        self._owner = {client: node for node, clients in self._clients.items() for client in clients}

    def forget_absent(self, nodes: Sequence[int]) -> None:
        """Without an assignment: free the ids of nodes that are gone: they may come back as others."""
        for node in self._clients.keys() - set(nodes):
            for client in self._clients.pop(node):
                del self._owner[client]

    def reassign(self, nodes: Sequence[int]) -> None:
        """Give the clients of nodes that are gone to those that have the fewest."""
        gone = self._clients.keys() - set(nodes)
        orphans = sorted(client for node in gone for client in self._clients.pop(node))
        for node in nodes:
            self._clients.setdefault(node, [])
        for client in orphans:
            node = min(nodes, key=lambda n: (len(self._clients[n]), n))
            self._clients[node].append(client)
            self._owner[client] = node

    def ask(self, clients: Iterable[int]) -> None:
        """Let only these clients, of an assignment, answer this round."""
        self._asked = frozenset(clients)

    def fault(self, node: int, client: int) -> str | None:
        """Say why `node` may not speak for `client`, or None; binds the pair at first sight."""
        if self.assigned:
            if client not in self._owner:
                return f"unknown client id {client}"
            if self._owner[client] != node:
                return f"client id {client} belongs to another node"
            if self._asked is not None and client not in self._asked:
                return f"client {client} was not asked this round"
            return None
        if node in self._clients and self._clients[node] != [client]:
            return f"node was client {self._clients[node][0]} before, now claims to be {client}"
        if self._owner.get(client, node) != node:
            return f"client id {client} belongs to another node"
        self._owner[client], self._clients[node] = node, [client]
        return None

    def clients_of(self, node: int) -> list[int]:
        """Clients that a node answers for (its own node id where it never named one)."""
        return self._clients.get(node, [] if self.assigned else [node])

    def admit(self, node: int, clients: Sequence[int], seen: set[int]) -> tuple[list[int], list[Rejection]]:
        """Check the clients that a reply is from, and add them to those `seen` this round.

        Returns:
            Positions of the clients that `node` may speak for, each once, and why not the others.
        """
        if not self.assigned and len(clients) > 1:
            return [], self.blame(node, f"one node claims to be {len(clients)} clients")
        keep: list[int] = []
        rejections: list[Rejection] = []
        for index, client in enumerate(clients):
            fault = self.fault(node, client)
            if fault is None and client in seen:
                fault = f"duplicate client id {client}"
            if fault is None:
                keep.append(index)
                seen.add(client)
            elif self.assigned:
                rejections.append(Rejection(client, fault))
            else:
                rejections += self.blame(node, fault)
        return keep, rejections

    def blame(self, node: int, reason: str) -> list[Rejection]:
        """A fault of a whole reply is one of each client that was asked of the node."""
        asked = self._asked
        clients = self.clients_of(node)
        return [Rejection(client, reason) for client in clients if asked is None or client in asked]


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


class ReplyFault(NamedTuple):
    """What is wrong with a reply, or with one client's part of it.

    Attributes:
        client: the id as the reply claims it; None if the whole reply is of no use.
        reason: what was wrong.
    """

    client: int | None
    reason: str


def decode_reply(
    message: Message, kind: UploadFormat, layout: Layout, weighted_by_key: str = NUM_EXAMPLES
) -> tuple[Upload | None, list[ReplyFault]]:
    """Decode one untrusted reply.

    Returns:
        The upload of the clients in it whose form is right (None if there are none) and a fault for
        every client whose form is not. Values are not looked at here, nor who may claim which id.
    """
    try:
        if message.has_error():
            what = _ERRORS.get(message.error.code, "client raised")
            raise Rejected(f"{what}: {plain(message.error.reason)}")
        if not message.has_content():
            raise Rejected("empty reply")
        return _decode_content(message.content, message.metadata.src_node_id, kind, layout, weighted_by_key)
    except (Rejected, DecodeError) as fault:
        return None, [ReplyFault(None, plain(fault))]
    except Exception as error:  # nothing that a client sends may end a run
        return None, [ReplyFault(None, f"cannot be decoded: {error_text(error)}")]


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
    content: RecordDict, node: int, kind: UploadFormat, layout: Layout, weighted_by_key: str
) -> tuple[Upload | None, list[ReplyFault]]:
    record = _only(content, ArrayRecord)
    clients = decode_metrics(content, node, weighted_by_key)
    faults = _failed_clients(content)
    keep = []
    for index, size in enumerate(clients.num_examples):
        if isinstance(size, Rejected):
            faults.append(ReplyFault(clients.client_ids[index], str(size)))
        else:
            keep.append(index)
    limit = max(layout.width * layout.row_dtype.itemsize * len(clients.client_ids), 8 * layout.width)
    upload = kind.from_payload(
        {name: array_view(array, limit) for name, array in record.items()},
        layout,
        clients.client_ids,
        np.array([1.0 if isinstance(size, Rejected) else size for size in clients.num_examples]),
        clients.metrics,
        cohort=clients.cohort,
    )
    return select(upload, keep), faults


def select(upload: Upload, keep: Sequence[int]) -> Upload | None:
    """Return the clients at positions `keep` of an upload (views where possible), None if empty."""
    if len(keep) == len(upload):
        return upload if keep else None
    return upload.take(list(keep)) if keep else None


def collect_uploads(
    replies: Iterable[Message],
    kind: UploadFormat,
    layout: Layout,
    roster: Roster,
    weighted_by_key: str = NUM_EXAMPLES,
) -> tuple[list[Upload], list[Rejection]]:
    """Decode a round's replies: every client once, each from the node that may speak for it."""
    uploads: list[Upload] = []
    rejections: list[Rejection] = []
    seen: set[int] = set()
    for message in sorted(replies, key=lambda m: m.metadata.src_node_id):
        node = message.metadata.src_node_id
        upload, faults = decode_reply(message, kind, layout, weighted_by_key)
        rejections += _attributed(faults, node, roster)
        if upload is None:
            continue
        keep, refused = roster.admit(node, upload.client_ids, seen)
        rejections += refused
        kept = select(upload, keep)
        if kept is not None:
            uploads.append(kept)
    return uploads, rejections


def _attributed(faults: list[ReplyFault], node: int, roster: Roster) -> list[Rejection]:
    """Blame the clients that a node may speak for, whatever ids its reply mentions."""
    named: list[Rejection] = []
    for client, reason in faults:
        if client is not None and roster.assigned:
            if roster.fault(node, client) is None:
                named.append(Rejection(client, reason))
        else:
            named += roster.blame(node, reason)
    return named if roster.assigned else named[:1]


def _only(content: RecordDict, kind: type[R]) -> R:
    records = records_of(content, kind)
    if len(records) != 1:
        raise Rejected(f"expected one {kind.__name__}, got {len(records)}")
    return next(iter(records.values()))


def _failed_clients(content: RecordDict) -> list[ReplyFault]:
    failed = records_of(content, ConfigRecord).get(FAILED, ConfigRecord())
    if not all(client.isdecimal() for client in failed):
        raise Rejected("failed clients are not named by integers")
    return [ReplyFault(int(client), plain(reason)) for client, reason in failed.items()]


def most_have(collections: Sequence[Iterable[H]]) -> list[H]:
    """What more than half of the collections contain, each of them once, in order of first appearance."""
    counts = Counter(item for own in collections for item in own)
    return [item for item, count in counts.items() if 2 * count > len(collections)]
