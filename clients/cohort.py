"""One node, many logical clients: train them one after the other, answer with one message."""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from logging import WARNING
from typing import Any

import numpy as np
from flwr.client import NumPyClient
from flwr.common import MetricRecord, NDArrays, RecordDict, log

from byzflower.flower.compat import array_record
from byzflower.flower.text import error_text, plain
from byzflower.uploads.base import CLIENT_ID, NUM_EXAMPLES, Rejected, number
from byzflower.uploads.codec import MAX_METRICS, MAX_NAME, encode_upload, most_have
from byzflower.uploads.kind import UploadKind
from byzflower.uploads.layout import Layout

ClientFactory = Callable[[int], NumPyClient]


def fit_one(
    client: NumPyClient,
    kind: UploadKind,
    names: Sequence[str],
    parameters: NDArrays,
    config: Mapping[str, Any],
    client_id: int | None = None,
) -> RecordDict:
    """Train one client and answer as any Flower client would.

    What the client returned is passed on unchecked: the server checks it. The reply names `client_id`, the id
    by which the server asked for the client, unless the client names itself.
    """
    arrays, num_examples, metrics = _fit(client, parameters, config)
    layout = Layout.of(dict(zip(names, parameters, strict=True)))
    record = array_record(kind.named([np.asarray(array) for array in arrays], layout))
    return RecordDict({"arrays": record, "metrics": _metric_record(num_examples, metrics, client_id)})


def _fit(client: NumPyClient, parameters: NDArrays, config: Mapping[str, Any]) -> Any:
    """Call `fit` with arrays of its own to write to, unless the client says that it only reads them."""
    own = parameters if getattr(client, "only_reads", False) else [np.array(p) for p in parameters]
    return client.fit(own, dict(config))


def fit_cohort(
    clients: Sequence[int],
    factory: ClientFactory,
    kind: UploadKind,
    names: Sequence[str],
    parameters: NDArrays,
    config: Mapping[str, Any],
) -> RecordDict:
    """Train several clients, in the order of `clients`, and answer with one upload of them all.

    A client that raises, or whose arrays are no upload of this kind, is named in the reply with the reason;
    the others are not affected.
    """
    layout = Layout.of(dict(zip(names, parameters, strict=True)))
    gathering = kind.gather(len(clients), layout)
    ids: list[int] = []
    sizes: list[float] = []
    metrics: list[dict[str, float]] = []
    failed: dict[int, str] = {}
    for client in clients:
        try:
            arrays, num_examples, own = _fit(factory(client), parameters, config)
            size, numbers = float(num_examples), _numbers(own)
            gathering.add(arrays)
        except BaseException as error:  # one bad client must not cost the cohort its round
            failed[client] = _own_fault(error)
            continue
        ids.append(client)
        sizes.append(size)
        metrics.append(numbers)
    return encode_upload(gathering.upload(ids, np.array(sizes), metrics), layout, failed, cohort=True)


def evaluate_cohort(
    clients: Sequence[int], factory: ClientFactory, parameters: NDArrays, config: Mapping[str, Any]
) -> RecordDict:
    """Let several clients score the model; the metrics that most of them have travel as lists.

    A client that raises is left out; where one lacks a metric, NaN takes its place.
    """
    scored: dict[int, dict[str, float]] = {}
    for client in clients:
        try:
            loss, num_examples, metrics = factory(client).evaluate(parameters, dict(config))
            scored[client] = {NUM_EXAMPLES: float(num_examples), "loss": float(loss), **_numbers(metrics)}
        except BaseException as error:  # one bad client must not cost the cohort its evaluation
            log(WARNING, "evaluation of client %d failed: %s", client, _own_fault(error))
    keys = most_have([*scored.values()])
    columns = {key: [own.get(key, math.nan) for own in scored.values()] for key in keys}
    return RecordDict({"metrics": MetricRecord({CLIENT_ID: list(scored), **columns})})


def evaluate_one(
    client: NumPyClient, parameters: NDArrays, config: Mapping[str, Any], client_id: int | None = None
) -> RecordDict:
    """Let one client score the model and answer as any Flower client would."""
    loss, num_examples, metrics = client.evaluate(parameters, dict(config))
    return RecordDict({"metrics": _metric_record(num_examples, {**metrics, "loss": loss}, client_id)})


def _metric_record(num_examples: Any, metrics: Mapping[str, Any], client_id: int | None) -> MetricRecord:
    named = metrics.get(CLIENT_ID, client_id)
    client = {} if named is None else {CLIENT_ID: named}
    return MetricRecord({**client, NUM_EXAMPLES: num_examples, **_numbers(metrics)})


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that a MetricRecord can carry, without the client's id; names are plain text."""
    numbers = (
        (plain(key, MAX_NAME), number(value))
        for key, value in metrics.items()
        if key != CLIENT_ID and isinstance(value, int | float | np.number)
    )
    return dict(islice(numbers, MAX_METRICS))


def _own_fault(error: BaseException) -> str:
    """The reason for a client that raised, even SystemExit; the user's Ctrl-C is re-raised.

    Ctrl-C is raised in the main thread; what a client raises in another thread is its own.
    """
    if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
        raise error
    return plain(error) if isinstance(error, Rejected) else f"client raised: {error_text(error)}"
