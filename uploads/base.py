"""What a client uploads: one typed, validated class per kind, for one client or a cohort of them."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from byzflower.flower.text import plain, quoted
from byzflower.uploads.layout import Layout

CLIENT_ID = "client-id"
CLIENT_IDS = "client-ids"
NUM_EXAMPLES = "num-examples"
MAX_NUM_EXAMPLES = 10**9
# What a metric may amount to: its weighted sums and squares over any clients are still finite.
MAX_METRIC = float(np.finfo(np.float32).max)


class Rejected(ValueError):
    """An upload is not what was asked for; the message says why, in `plain` text."""

    def __init__(self, reason: object) -> None:
        super().__init__(plain(reason))


class Rejection(NamedTuple):
    """One client left out of a round before aggregation.

    Attributes:
        client: logical client id (the Flower node id where no logical id is known for certain).
        reason: what was wrong with its reply.
    """

    client: int
    reason: str


class Ignored(NamedTuple):
    """Something a node sent that had no effect.

    Attributes:
        node: Flower node id.
        reason: what it was, and why it had no effect.
    """

    node: int
    reason: str


def among(clients: Iterable[int], chosen: Iterable[int]) -> NDArray[np.bool_]:
    """Which clients are chosen: (n,). Ids reach 2^64, and NumPy may compare them as rounded floats."""
    members = set(chosen)
    return np.array([client in members for client in clients], np.bool_)


@dataclass
class Upload(ABC):
    """The uploads of k clients.

    Attributes:
        client_ids: k logical client ids.
        num_examples: (k,) training examples that each client reports.
        metrics: k dictionaries of the clients' own training metrics.
    """

    kind: ClassVar[str]

    client_ids: list[int]
    num_examples: NDArray[np.float64]
    metrics: list[dict[str, float]]

    def __len__(self) -> int:
        return len(self.client_ids)

    @abstractmethod
    def take(self, indices: list[int]) -> "Upload":
        """Return the uploads of the clients at these positions."""

    def part(self, indices: list[int]) -> "Upload":
        """The uploads of the clients at these ascending positions; views where that is possible."""
        return self.take(indices)

    @abstractmethod
    def payload(self, layout: Layout, *, cohort: bool) -> dict[str, NDArray[Any]]:
        """Named arrays that carry this upload: a cohort's, or what an ordinary Flower client sends."""

    @abstractmethod
    def client_bytes(self, layout: Layout) -> list[int]:
        """Bytes of array payload that each client sends when it is alone on its node."""


def is_client_id(value: object) -> bool:
    """Whether an untrusted value can be a logical client id: a non-negative integer of 64 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64


def number(value: object) -> float:
    """An untrusted value as a float: NaN if it is no number, infinite if it is too large."""
    if not isinstance(value, int | float | np.integer | np.floating):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def can_be_averaged(value: float) -> bool:
    """Whether a metric is at most `MAX_METRIC`; NaN is not."""
    return abs(value) <= MAX_METRIC


def check_num_examples(value: object) -> float:
    """Return a client's reported number of examples if it is believable.

    Raises:
        Rejected: not a number, not finite, not positive, or above `MAX_NUM_EXAMPLES`.
    """
    size = math.nan if isinstance(value, bool) else number(value)
    if not 0 < size <= MAX_NUM_EXAMPLES:
        raise Rejected(f"num-examples is {quoted(value)}, not a number in (0, {MAX_NUM_EXAMPLES}]")
    return size
