"""Uploads in Flower's Message dialect: encoding for clients, suspicious decoding for servers."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flwr.common import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from byzflower.uploads.base import (
    CLIENT_ID,
    NUM_EXAMPLES,
    Rejected,
    Rejection,
    Upload,
    check_num_examples,
)
from byzflower.uploads.flower_compat import DecodeError, R, array_record, array_view, records_of
from byzflower.uploads.layout import Layout

FAILED = "failed-clients"


class Roster:
    """Who may speak for which logical client.

    With an assignment (simulated cohorts), a node answers for exactly the clients it was given.
    Without one (ordinary Flower), a node is one client: the id it names first, if any, is its own for
    the rest of the run and nobody else's; a node that names none is known by its node id.
    """

    def __init__(self, assignment: Mapping[int, Sequence[int]] | None = None):
        self.assigned = assignment is not None
        self._asked: frozenset[int] | None = None
        self._owner: dict[int, int] = {}
        self._client_of: dict[int, int] = {}
        for node, clients in (assignment or {}).items():
            self._owner.update(dict.fromkeys(clients, node))

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
        if self._owner.setdefault(client, node) != node:
            return f"client id {client} belongs to another node"
        if self._client_of.setdefault(node, client) != client:
            return f"node was client {self._client_of[node]} before, now claims to be {client}"
        return None

    def clients_of(self, node: int) -> list[int]:
        """Clients that a node answers for (its own node id where it never named one)."""
        if self.assigned:
            return [client for client, owner in self._owner.items() if owner == node]
        return [self._client_of.get(node, node)]


def encode_upload(
    upload: Upload, layout: Layout, failed: Mapping[int, str] | None = None, *, cohort: bool
) -> RecordDict:
    """Make a reply's content.

    A single client's reply is what any Flower client would send; a cohort's carries its clients' ids,
    sizes and metrics as lists, and names the clients that failed with the reason.
    """
    failed = failed or {}
    metrics = MetricRecord()
    if cohort:
        metrics[CLIENT_ID] = list(upload.client_ids)
        metrics[NUM_EXAMPLES] = [float(n) for n in upload.num_examples]
        for key in _common_keys(upload.metrics):
            metrics[key] = [float(m[key]) for m in upload.metrics]
    else:
        metrics[CLIENT_ID] = upload.client_ids[0]
        metrics[NUM_EXAMPLES] = float(upload.num_examples[0])
        metrics.update({k: float(v) for k, v in upload.metrics[0].items()})
    arrays = array_record(upload.payload(layout, cohort=cohort))
    content = RecordDict({"arrays": arrays, "metrics": metrics})
    if failed:
        content[FAILED] = ConfigRecord({str(client): reason[:500] for client, reason in failed.items()})
    return content


def decode_reply(
    message: Message, kind: type[Upload], layout: Layout, weighted_by_key: str = NUM_EXAMPLES
) -> tuple[Upload | None, list[Rejection]]:
    """Decode one untrusted reply.

    Returns:
        The upload of the clients in it whose form is right (None if there are none) and a rejection
        for every client whose form is not. Values are not looked at here.
    """
    node = message.metadata.src_node_id
    try:
        if message.has_error():
            raise Rejected(f"client raised: {message.error.reason!s:.300}")
        if not message.has_content():
            raise Rejected("empty reply")
        return _decode_content(message.content, node, kind, layout, weighted_by_key)
    except (Rejected, DecodeError) as fault:
        return None, [Rejection(node, str(fault))]


class ClientMetrics(NamedTuple):
    """What the MetricRecord of a reply says about the k clients in it.

    Attributes:
        cohort: whether the reply is a cohort's (lists) or one client's (numbers).
        client_ids: k ids.
        num_examples: k numbers of examples, or the reason why one is not believable.
        metrics: k dictionaries with all other metrics.
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
    if not all(isinstance(i, int) and 0 <= i < 2**64 for i in ids):
        raise Rejected("client-id is not a non-negative integer")
    columns = {key: value if isinstance(value, list) else [value] for key, value in metrics.items()}
    if any(isinstance(metrics[k], list) != cohort or len(v) != len(ids) for k, v in columns.items()):
        raise Rejected(f"metrics do not have one value for each of {len(ids)} clients")
    others = [key for key in columns if key not in (weighted_by_key, CLIENT_ID)]
    return ClientMetrics(
        cohort,
        ids,
        [_num_examples_or_fault(value) for value in columns[weighted_by_key]],
        [{key: float(columns[key][i]) for key in others} for i in range(len(ids))],
    )


def _num_examples_or_fault(value: object) -> float | Rejected:
    try:
        return check_num_examples(value)
    except Rejected as fault:
        return fault


def _decode_content(
    content: RecordDict, node: int, kind: type[Upload], layout: Layout, weighted_by_key: str
) -> tuple[Upload | None, list[Rejection]]:
    record = _only(content, ArrayRecord)
    clients = decode_metrics(content, node, weighted_by_key)
    rejections = _failed_clients(content)
    keep = []
    for index, size in enumerate(clients.num_examples):
        if isinstance(size, Rejected):
            rejections.append(Rejection(clients.client_ids[index], str(size)))
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
    return select(upload, keep), rejections


def select(upload: Upload, keep: Sequence[int]) -> Upload | None:
    """Return the clients at positions `keep` of an upload (views where possible), None if empty."""
    if len(keep) == len(upload):
        return upload if keep else None
    return upload.take(list(keep)) if keep else None


def collect_uploads(
    replies: Iterable[Message],
    kind: type[Upload],
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
        rejections += _name_clients(faults, node, roster)
        if upload is None:
            continue
        if not roster.assigned and len(upload) > 1:
            rejections.append(Rejection(node, f"one node claims to be {len(upload)} clients"))
            continue
        keep = []
        for index, client in enumerate(upload.client_ids):
            fault = roster.fault(node, client)
            if fault is None and client in seen:
                fault = f"duplicate client id {client}"
            if fault is None:
                keep.append(index)
                seen.add(client)
            else:
                rejections.append(Rejection(client if roster.assigned else node, fault))
        kept = select(upload, keep)
        if kept is not None:
            uploads.append(kept)
    return uploads, rejections


def _name_clients(faults: list[Rejection], node: int, roster: Roster) -> list[Rejection]:
    """A fault of a whole reply is one of each client that the node answers for."""
    named = []
    for fault in faults:
        if fault.client == node:
            named += [Rejection(client, fault.reason) for client in roster.clients_of(node)]
        else:
            named.append(fault)
    return named


def _only(content: RecordDict, kind: type[R]) -> R:
    records = records_of(content, kind)
    if len(records) != 1:
        raise Rejected(f"expected one {kind.__name__}, got {len(records)}")
    return next(iter(records.values()))


def _failed_clients(content: RecordDict) -> list[Rejection]:
    faults: list[Rejection] = []
    for client, reason in records_of(content, ConfigRecord).get(FAILED, ConfigRecord()).items():
        try:
            faults.append(Rejection(int(client), f"{reason!s:.300}"))
        except ValueError:
            raise Rejected("failed clients are not named by integers") from None
    return faults


def _common_keys(metrics: Sequence[Mapping[str, float]]) -> list[str]:
    if not metrics:
        return []
    return [key for key in metrics[0] if all(key in m for m in metrics)]
