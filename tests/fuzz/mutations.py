"""What hostile, and unlucky, nodes do to a reply: small edits that can be combined in any number.

Each is a function of the reply (or of what was trained, before it is encoded) and of arguments that its
case spells out. Positions are taken modulo what there is, so that every edit fits every reply.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import array_edits
from .array_edits import fill
from .content import ARRAYS, CONFIG, METRICS, Record, Reply
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
    record = reply.first(ARRAYS)
    if record and record.items:
        payload = record.items[array % len(record.items)][1]
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
        *array_edits.ALL,
        *(rename, remove, add, again, reorder, drop, repeat, label, empty, settings),
        *(metric, size, claim, size_at, claim_at, forget, lengthen, relist, failed),
        *(error, silent, twice, uninvited, absent, wire_flip, wire_cut),
    )
}
# Bad luck: who is heard twice is benign in that round; who is not heard is benign in the next one.
HARMLESS = {"twice", "uninvited"}
UNLUCKY = {"silent", "error"}
