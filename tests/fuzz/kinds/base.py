"""What the fuzzer knows of an upload kind: how a benign client encodes one, and what an upload means.

Written from the documented contract in plain NumPy, not with the project's decoders.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np

from ..content import Payload, array_in, npy_header, type_name
from ..models import Model

# Squared norms below are in range, whatever the rows' dtype.
_ROOM = 1e29


class Fate(Enum):
    """What must become of a client's upload."""

    ACCEPT = "accept"
    EITHER = "either"
    QUARANTINE = "quarantine"


class Malformed(Exception):
    """Arrays that are no upload of this kind; the text says why."""


@dataclass
class Local:
    """What one client trained, before it is encoded.

    Attributes:
        update: (width,) what it subtracts from the model (weights), or sends (gradients, items).
        touched: (parts,) bool, the packs, items or rows that it sends.
    """

    update: np.ndarray
    touched: np.ndarray


@dataclass
class Effect:
    """What one client's upload means for the aggregate.

    Attributes:
        row: (width,) float64 pseudo-gradient, 0 where nothing was sent; or the state, for moments.
        sent: (width,) bool, the columns that were sent.
        fate: by its values alone.
        why: the reason of that.
    """

    row: np.ndarray
    sent: np.ndarray
    fate: Fate = Fate.ACCEPT
    why: str = ""


@dataclass
class Decoded:
    """A well-formed payload.

    Attributes:
        effects: one for each of the k clients in it.
        certain: False if the contract does not say whether its form has to be understood (a version 2
            header, a shape in Fortran's order, metadata that lie).
    """

    effects: list[Effect] = field(default_factory=list)
    certain: bool = True


@dataclass
class Expected:
    """What the model must become.

    Attributes:
        row: (width,) its row.
        tolerance: (width,) how far off each column may be.
        may_stay: (width,) bool, columns that may also keep their value: few clients sent them, and they
            would move by much more than most clients moved anything.
    """

    row: np.ndarray
    tolerance: np.ndarray
    may_stay: np.ndarray


class Kind(ABC):
    """An upload kind, with the model that a round starts from."""

    parts: int

    def __init__(self, model: Model, arrays: Sequence[np.ndarray], config: Mapping[str, Any]) -> None:
        """Begin a round.

        Args:
            model: the model.
            arrays: what was broadcast, in order.
            config: what clients were told.
        """
        self.model = model
        self.start = model.row(arrays[: len(model.names)])
        self.config = config

    @abstractmethod
    def encode(self, locals_: Sequence[Local], *, cohort: bool) -> dict[str, np.ndarray]:
        """Named arrays of benign clients: a cohort's, or one client's."""

    @abstractmethod
    def decode(self, arrays: Mapping[str, Payload], k: int, *, cohort: bool) -> Decoded:
        """Understand what k clients sent.

        Raises:
            Malformed: it is not what was asked for.
        """

    @abstractmethod
    def expected(
        self, rule: str, effects: Sequence[Effect], weights: np.ndarray, dtype: Any
    ) -> Expected | None:
        """The new model by a rule whose result is known here, else None."""


def names_must_be(arrays: Mapping[str, Payload], expected: Sequence[str]) -> None:
    """Raise `Malformed` unless the arrays have these names, in this order."""
    if list(arrays) != list(expected):
        raise Malformed(f"arrays {list(arrays)!r:.80}, expected {list(expected)}")


def values_in(payload: Payload, dtype: np.dtype[Any], shape: tuple[int, ...]) -> tuple[np.ndarray, bool]:
    """The array in a payload that must have this dtype and shape, and whether its form is the usual one.

    Raises:
        Malformed: it is none.
    """
    if payload.stype != "numpy.ndarray":
        raise Malformed(f"serialised as {payload.stype!r:.40}")
    header = npy_header(dtype.str, shape)
    size = math.prod(shape) * dtype.itemsize
    if len(payload.data) == len(header) + size and payload.data.startswith(header):
        told = payload.dtype == type_name(dtype.str) and tuple(payload.shape) == shape
        return np.frombuffer(payload.data, dtype, offset=len(header)).reshape(shape), told
    array = array_in(payload)
    if array is None or array.dtype != dtype or array.shape != shape:
        got = "no array" if array is None else f"{array.dtype.str} {array.shape}"
        raise Malformed(f"{got}, expected {dtype.str} {shape}")
    return array, False


def any_shape(payload: Payload, dtype: np.dtype[Any], ndim: int) -> tuple[np.ndarray, bool]:
    """Likewise, of any shape with so many dimensions."""
    array = array_in(payload)
    if array is None or array.ndim != ndim:
        raise Malformed(f"no array of {ndim} dimensions")
    return values_in(payload, dtype, array.shape)


def fate_of_row(
    row: np.ndarray, d: int, dtype: np.dtype[Any], after: np.ndarray | None = None, model: Model | None = None
) -> tuple[Fate, str]:
    """What must become of a pseudo-gradient by its values.

    Not finite, or a squared norm beyond the row's dtype: quarantined. How much room a rule needs below that
    is the project's to say, as is whether buffers count, and what becomes of an upload that, alone, would
    lead to a model that its own dtypes cannot hold.

    Args:
        row: the pseudo-gradient.
        d: columns that are parameters.
        dtype: of the project's rows.
        after: (width,) the model that the row alone would lead to.
        model: the model.
    """
    largest = float(np.finfo(dtype).max)
    with np.errstate(over="ignore", invalid="ignore"):
        if np.dot(row, row) < _ROOM:
            narrow = model is not None and after is not None and (np.abs(after) > 0.5 * model.largest).any()
            return (Fate.EITHER, "at the model's limits") if narrow else (Fate.ACCEPT, "")
        if not np.isfinite(row).all():
            return Fate.QUARANTINE, "not finite"
        size = max(np.abs(row).max(), np.dot(row[:d], row[:d]))
        if size > largest * 1.001 or not math.isfinite(size):
            return Fate.QUARANTINE, "its squared norm overflows"
    return Fate.EITHER, "little room"
