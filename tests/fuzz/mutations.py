"""What hostile, and unlucky, nodes do to a reply: small edits that can be combined in any number.

Each is a function of the reply (or of what was trained, before it is encoded) and of arguments that its
case spells out. Positions are taken modulo what there is, so that every edit fits every reply.
"""

import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .content import (
    ARRAYS,
    CONFIG,
    METRICS,
    Payload,
    Record,
    Reply,
    array_in,
    custom_header,
    npy_header,
    payload_of,
)
from .kinds import Local

SIZE, ID, FAILED = "num-examples", "client-id", "failed-clients"

# -- what was trained ------------------------------------------------------------------------------------


def update(locals_: Sequence[Local], client: int, at: int, value: float) -> None:
    """Train one coordinate to a value, and encode that as a benign client would."""
    own = locals_[client % len(locals_)].update
    own[at % len(own)] = value


def update_all(locals_: Sequence[Local], client: int, value: float) -> None:
    """Train all coordinates to a value."""
    locals_[client % len(locals_)].update[:] = value


def grow(locals_: Sequence[Local], client: int, value: float) -> None:
    """Train in the benign direction, much farther."""
    with np.errstate(over="ignore", invalid="ignore"):
        locals_[client % len(locals_)].update *= value


def touch(locals_: Sequence[Local], client: int, at: int, much: int) -> None:
    """Send another choice of packs, items or rows: none, all, or one."""
    own = locals_[client % len(locals_)].touched
    own[:] = much % 3 == 1
    if much % 3 == 2:
        own[at % len(own)] = True


# -- arrays ----------------------------------------------------------------------------------------------


def _payload(reply: Reply, array: int) -> Payload | None:
    record = reply.first(ARRAYS)
    return record.items[array % len(record.items)][1] if record and record.items else None


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


# -- names and records -----------------------------------------------------------------------------------


def rename(reply: Reply, array: int, text: str) -> None:
    """Give an array another name."""
    record = reply.first(ARRAYS)
    if record and record.items:
        at = array % len(record.items)
        record.items[at] = (text, record.items[at][1])


def remove(reply: Reply, array: int) -> None:
    """Leave an array out."""
    record = reply.first(ARRAYS)
    if record and record.items:
        del record.items[array % len(record.items)]


def add(reply: Reply, array: int, text: str) -> None:
    """Send an array once more, under another name."""
    record, payload = reply.first(ARRAYS), _payload(reply, array)
    if record and payload:
        record.items.insert(array % (len(record.items) + 1), (text, payload))


def again(reply: Reply, array: int, value: float) -> None:
    """Send a name twice; the last counts."""
    record = reply.first(ARRAYS)
    if record and record.items:
        record.items.append(record.items[array % len(record.items)])
        fill(reply, len(record.items) - 1, value)


def reorder(reply: Reply) -> None:
    """Send the arrays in another order."""
    record = reply.first(ARRAYS)
    if record:
        record.items.reverse()


def drop(reply: Reply, part: str) -> None:
    """Leave a record out."""
    reply.records = [record for record in reply.records if record.kind != part]


def repeat(reply: Reply, part: str, text: str) -> None:
    """Send a record twice, under another name."""
    record = reply.first(part)
    if record:
        reply.records.append(Record(text, record.kind, list(record.items)))


def label(reply: Reply, part: str, text: str) -> None:
    """Give a record another name."""
    record = reply.first(part)
    if record:
        record.name = text


def empty(reply: Reply) -> None:
    """Send nothing at all."""
    reply.records = []


def settings(reply: Reply, text: str, number: Any) -> None:
    """Send a ConfigRecord that nobody asked for."""
    reply.records.append(Record(text, CONFIG, [(text, number)]))


# -- numbers and ids -------------------------------------------------------------------------------------


def metric(reply: Reply, text: str, number: Any) -> None:
    """Report any metric."""
    record = reply.first(METRICS)
    if record:
        record.set(text, number)


def size(reply: Reply, number: Any) -> None:
    """Report any number of examples."""
    metric(reply, SIZE, number)


def claim(reply: Reply, identity: Any) -> None:
    """Claim any client id."""
    metric(reply, ID, identity)


def size_at(reply: Reply, at: int, number: Any) -> None:
    """Report any number of examples for one client of a cohort."""
    _set_at(reply, SIZE, at, number)


def claim_at(reply: Reply, at: int, identity: Any) -> None:
    """Claim any id for one client of a cohort."""
    _set_at(reply, ID, at, identity)


def _set_at(reply: Reply, key: str, at: int, number: Any) -> None:
    record = reply.first(METRICS)
    own = record.values.get(key) if record else None
    if record and isinstance(own, list) and own and isinstance(number, int | float):
        own = [*own]
        own[at % len(own)] = number
        record.set(key, own)


def forget(reply: Reply, key: str) -> None:
    """Leave a metric out."""
    record = reply.first(METRICS)
    if record:
        record.items = [(name, number) for name, number in record.items if name != key]


def lengthen(reply: Reply, key: str, number: Any) -> None:
    """Report one value more than there are clients."""
    record = reply.first(METRICS)
    if record and isinstance(number, int | float):
        own = record.values.get(key, [])
        record.set(key, [*(own if isinstance(own, list) else [own]), number])


def relist(reply: Reply) -> None:
    """Report lists where numbers are asked for, and the other way round."""
    record = reply.first(METRICS)
    if record:
        record.items = [
            (name, (number[0] if number else 0) if isinstance(number, list) else [number])
            for name, number in record.items
        ]


def failed(reply: Reply, keys: list[str], text: str) -> None:
    """Say of some clients that they failed."""
    reply.records.append(Record(FAILED, CONFIG, [(key, text) for key in keys]))


# -- delivery --------------------------------------------------------------------------------------------


def error(reply: Reply, code: int, text: str) -> None:
    """Answer with an error."""
    reply.error = (code, text)


def silent(reply: Reply) -> None:
    """Never answer."""
    reply.copies = 0


def twice(reply: Reply) -> None:
    """Be heard twice."""
    reply.copies += 1


def uninvited(reply: Reply) -> None:
    """Answer without having been asked; from who was asked, nothing unusual."""


def absent(reply: Reply) -> None:
    """Not be connected in this round."""


def wire_flip(reply: Reply, at: int, bit: int) -> None:
    """Flip a bit of the serialised message."""
    reply.edits.append((at, 1 << bit % 8))


def wire_cut(reply: Reply, at: int) -> None:
    """Cut the serialised message short."""
    reply.edits.append((at, None))


TRAINING: dict[str, Callable[..., None]] = {
    function.__name__: function for function in (update, update_all, grow, touch)
}
EDITS: dict[str, Callable[..., None]] = {
    function.__name__: function
    for function in (
        *(truncate, extend, flip, header, replace, pickled, recast, fortran, resize, value, fill, stype, lie),
        *(rename, remove, add, again, reorder, drop, repeat, label, empty, settings),
        *(metric, size, claim, size_at, claim_at, forget, lengthen, relist, failed),
        *(error, silent, twice, uninvited, absent, wire_flip, wire_cut),
    )
}
# Bad luck: who is heard twice is benign in that round; who is not heard is benign in the next one.
HARMLESS = {"twice", "uninvited"}
UNLUCKY = {"silent", "error"}
