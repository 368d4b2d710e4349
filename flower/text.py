"""Untrusted text, made safe to log, record and show: one line of printable characters."""

import traceback
from collections.abc import Callable
from typing import TypeVar

_UNREADABLE = "(unreadable)"
_FRAMES = 10
T = TypeVar("T")


def plain(text: object, limit: int = 300) -> str:
    r"""Make untrusted text one line of printable characters.

    Whatever could forge a line, move a cursor or turn the reading direction (control characters, line
    ends, bidirectional overrides, lone surrogates) is shown as Python would write it: ``\x1b``, ``\n``,
    ``\u202e``. A text that is plain already is returned as it is.

    Args:
        text: a string, or anything with a `__str__`, which may raise.
        limit: most characters to return, at least 1; what is longer ends in an ellipsis.
    """
    # Calls no method that a subclass of str may have overridden.
    start = str.__getitem__(_rendered(str, text), slice(limit + 1))
    if not start.isprintable():
        start = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in start)
    return start if len(start) <= limit else start[: limit - 1] + "…"


def quoted(value: object, limit: int = 40) -> str:
    """The `repr` of an untrusted value as `plain` text, also of an integer that is too long for it."""
    return plain(_rendered(repr, value), limit)


def error_text(error: BaseException, limit: int = 300) -> str:
    """Class and message of an exception, as `plain` text."""
    name, message = plain(_rendered(lambda e: type(e).__name__, error), limit), plain(error, limit)
    return plain(f"{name}: {message}" if message else name, limit)


def frames_text(error: BaseException) -> str:
    """Where an exception was raised: a `plain` line for each of the last frames of its traceback."""

    def lines(error: BaseException) -> str:
        frames = traceback.extract_tb(error.__traceback__, -_FRAMES)
        return "\n".join(plain(f'  File "{f.filename}", line {f.lineno}, in {f.name}') for f in frames)

    return _rendered(lines, error)


def _rendered(render: Callable[[T], str], thing: T) -> str:
    try:
        return render(thing)
    except BaseException:  # an untrusted value's methods may raise anything, even SystemExit
        return _UNREADABLE
