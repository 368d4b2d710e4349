"""Averages of the clients' own metrics, of which nothing is trusted, not even to be a number."""

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

from flwr.common import MetricRecord, RecordDict

from byzflower.uploads.base import Upload, can_be_averaged
from byzflower.uploads.codec import most_have

Reported = tuple[float, dict[str, float]]


def accepted_metrics(uploads: Sequence[Upload], accepted: Collection[int]) -> list[Reported]:
    """Sizes and metrics of the accepted clients."""
    members = set(accepted)
    return [
        (size, metrics)
        for upload in uploads
        for client, size, metrics in zip(
            upload.client_ids, upload.num_examples.tolist(), upload.metrics, strict=True
        )
        if client in members
    ]


def average_metrics(
    clients: Sequence[Reported], average: Callable[..., Any] | None, weighted_by_key: str
) -> MetricRecord | None:
    """Average the metrics that most clients report, over the clients that report them all.

    A metric that is not finite, or beyond `MAX_METRIC`, is none.

    Args:
        clients: sizes and metrics.
        average: the user's function, which gets a record for each client; None for an average weighted by
            size (Flower's default is the same, one record at a time).
        weighted_by_key: under which such a record has the size.
    """
    reported = [{k: v for k, v in metrics.items() if can_be_averaged(v)} for _, metrics in clients]
    keys = most_have(reported)
    complete = [
        (size, own)
        for (size, _), own in zip(clients, reported, strict=True)
        if all(key in own for key in keys)
    ]
    if not complete:
        return None
    if average is None:
        total = math.fsum(size for size, _ in complete)
        shares = [size / total for size, _ in complete]
        return MetricRecord(
            {k: sum(s * m[k] for s, (_, m) in zip(shares, complete, strict=True)) for k in keys}
        )
    contents = [
        RecordDict({"metrics": MetricRecord({weighted_by_key: size, **{k: metrics[k] for k in keys}})})
        for size, metrics in complete
    ]
    result: MetricRecord = average(contents, weighted_by_key)
    return result
