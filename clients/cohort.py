"""One node, many logical clients: train them one after the other, answer with one message."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from flwr.client import NumPyClient
from flwr.common import MetricRecord, NDArrays, RecordDict

from byzflower.uploads.base import CLIENT_ID, NUM_EXAMPLES, Rejected
from byzflower.uploads.dense import DenseUpload
from byzflower.uploads.flower_compat import array_record
from byzflower.uploads.layout import Layout
from byzflower.uploads.reply import encode_upload

ClientFactory = Callable[[int], NumPyClient]


def fit_one(
    client: NumPyClient,
    names: Sequence[str],
    parameters: NDArrays,
    config: Mapping[str, Any],
    client_id: int | None = None,
) -> RecordDict:
    """Train one client and answer as any Flower client would.

    What the client returned is passed on as it is: judging it is the server's business. It is named
    `client_id`, the id by which the server asked for it, unless it names itself.
    """
    arrays, num_examples, metrics = client.fit(parameters, dict(config))
    names = names if len(names) == len(arrays) else [str(i) for i in range(len(arrays))]
    record = array_record({name: np.asarray(a) for name, a in zip(names, arrays, strict=True)})
    return RecordDict({"arrays": record, "metrics": _metric_record(num_examples, metrics, client_id)})


def fit_cohort(
    clients: Sequence[int],
    factory: ClientFactory,
    names: Sequence[str],
    parameters: NDArrays,
    config: Mapping[str, Any],
) -> RecordDict:
    """Train several clients, in the order of `clients`, and answer with one matrix.

    A client that raises, or whose arrays are not the model's, is named in the reply with the reason;
    the others are not affected.
    """
    layout = Layout.of(dict(zip(names, parameters, strict=True)))
    rows = np.empty((len(clients), layout.width), layout.row_dtype)
    ids: list[int] = []
    sizes: list[float] = []
    metrics: list[dict[str, float]] = []
    failed: dict[int, str] = {}
    for client in clients:
        try:
            arrays, num_examples, own = factory(client).fit(parameters, dict(config))
            DenseUpload.check_arrays(arrays, layout)
            sizes.append(float(num_examples))
        except Rejected as fault:
            failed[client] = str(fault)
            continue
        except Exception as error:  # one bad client must not cost the cohort its round
            failed[client] = f"client raised: {type(error).__name__}: {error!s:.300}"
            continue
        layout.write_row(arrays, rows[len(ids)])
        ids.append(client)
        metrics.append(_numbers(own))
    upload = DenseUpload(ids, np.array(sizes), metrics, rows[: len(ids)])
    return encode_upload(upload, layout, failed, cohort=True)


def evaluate_cohort(
    clients: Sequence[int], factory: ClientFactory, parameters: NDArrays, config: Mapping[str, Any]
) -> RecordDict:
    """Let several clients score the model; their metrics travel as lists."""
    columns: dict[str, list[float]] = {}
    for client in clients:
        loss, num_examples, metrics = factory(client).evaluate(parameters, dict(config))
        for key, value in {NUM_EXAMPLES: num_examples, "loss": loss, **_numbers(metrics)}.items():
            columns.setdefault(key, []).append(float(value))
    record = MetricRecord({CLIENT_ID: list(clients), **columns})
    return RecordDict({"metrics": record})


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
    """The metrics that a MetricRecord can carry, without the client's id."""
    return {
        key: float(value)
        for key, value in metrics.items()
        if key != CLIENT_ID and isinstance(value, int | float | np.number)
    }
