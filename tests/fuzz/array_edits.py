"""What hostile nodes do to the bytes of an array."""

import pickle
from collections.abc import Callable

import numpy as np

from .content import ARRAYS, Payload, Reply, array_in, custom_header, npy_header, payload_of


def _edit(reply: Reply, array: int, change: Callable[[Payload], Payload | None]) -> None:
    record = reply.first(ARRAYS)
    if record and record.items:
        at = array % len(record.items)
        name, payload = record.items[at]
        record.items[at] = (name, change(payload) or payload)


def _rewrite(reply: Reply, array: int, change: Callable[[np.ndarray], np.ndarray | None]) -> None:
    def on(payload: Payload) -> Payload | None:
        values = array_in(payload)
        try:
            with np.errstate(all="ignore"):
                changed = None if values is None else change(np.array(values))
        except (TypeError, ValueError):  # a string is no number
            changed = None
        return None if changed is None else payload_of(np.asarray(changed, order="C"))

    _edit(reply, array, on)


def truncate(reply: Reply, array: int, count: int) -> None:
    """Cut bytes off the end."""
    _edit(reply, array, lambda p: Payload(p.data[: max(0, len(p.data) - count)], p.dtype, p.shape, p.stype))


def extend(reply: Reply, array: int, count: int) -> None:
    """Append zeros."""
    _edit(reply, array, lambda p: Payload(p.data + bytes(count), p.dtype, p.shape, p.stype))


def flip(reply: Reply, array: int, at: int, bit: int) -> None:
    """Flip a bit."""

    def on(payload: Payload) -> Payload:
        data = bytearray(payload.data)
        if data:
            data[at % len(data)] ^= 1 << bit % 8
        return Payload(bytes(data), payload.dtype, payload.shape, payload.stype)

    _edit(reply, array, on)


def header(reply: Reply, array: int, text: str) -> None:
    """Put another header before the values."""

    def on(payload: Payload) -> Payload:
        values = array_in(payload)
        rest = b"" if values is None else values.tobytes()
        return Payload(custom_header(text) + rest, payload.dtype, payload.shape, payload.stype)

    _edit(reply, array, on)


def replace(reply: Reply, array: int, text: str) -> None:
    """Send any bytes."""
    _edit(reply, array, lambda p: Payload(text.encode("latin-1", "replace"), p.dtype, p.shape, p.stype))


def pickled(reply: Reply, array: int) -> None:
    """Send an array of Python objects."""
    data = npy_header("|O", (1,)) + pickle.dumps(np.array([{}], object))
    _edit(reply, array, lambda p: Payload(data, "object", (1,), p.stype))


def recast(reply: Reply, array: int, dtype: str) -> None:
    """Send the values as another type."""
    _rewrite(reply, array, lambda values: values.astype(dtype))


def fortran(reply: Reply, array: int) -> None:
    """Send the values in Fortran's order."""

    def on(payload: Payload) -> Payload | None:
        values = array_in(payload)
        if values is None:
            return None
        data = npy_header(values.dtype.str, values.shape, True) + values.tobytes("F")
        return Payload(data, payload.dtype, payload.shape, payload.stype)

    _edit(reply, array, on)


def resize(reply: Reply, array: int, shape: list[int]) -> None:
    """Send an array of another shape."""
    _rewrite(reply, array, lambda values: np.resize(values, shape))


def value(reply: Reply, array: int, at: int, value: float) -> None:
    """Set one entry, whatever its type makes of the value."""

    def on(values: np.ndarray) -> np.ndarray | None:
        if not values.size:
            return None
        values.flat[at % values.size] = np.float64(value).astype(values.dtype)
        return values

    _rewrite(reply, array, on)


def fill(reply: Reply, array: int, value: float) -> None:
    """Set all entries."""
    _rewrite(reply, array, lambda values: np.full_like(values, np.float64(value).astype(values.dtype)))


def stype(reply: Reply, array: int, text: str) -> None:
    """Claim another serialisation."""
    _edit(reply, array, lambda p: Payload(p.data, p.dtype, p.shape, text))


def lie(reply: Reply, array: int, text: str, shape: list[int]) -> None:
    """Say something else about an array than its bytes do."""
    _edit(reply, array, lambda p: Payload(p.data, text, tuple(shape), p.stype))


ALL = (truncate, extend, flip, header, replace, pickled, recast, fortran, resize, value, fill, stype, lie)
