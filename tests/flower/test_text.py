"""Text from strangers: whatever it is and does, one short line of printable characters is left."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byzflower.flower.text import error_text, frames_text, plain, quoted
from byzflower.uploads.base import Rejected

ANYTHING = st.text(st.characters(categories=None), max_size=400)  # surrogates included
LIMITS = st.integers(1, 120)


@given(ANYTHING, LIMITS)
def test_plain_text_is_printable_short_and_stays_as_it_is(text, limit):
    shown = plain(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit
    assert len(shown.splitlines()) <= 1
    assert plain(shown, limit) == shown
    shown.encode()


@given(st.text(st.characters(categories=["L", "N", "P", "S"])))
def test_what_is_plain_already_is_not_changed(text):
    assert plain(text, len(text) + 1) == text


@given(ANYTHING)
def test_nothing_is_lost_that_fits(text):
    """What is shown is what Python would write, so it can be read back."""
    without_backslashes = text.replace("\\", "")
    shown = plain(without_backslashes, 10 * len(text) + 1)
    escaped = "".join(c if c.isascii() else c.encode("unicode_escape").decode() for c in shown)
    assert escaped.encode().decode("unicode_escape") == without_backslashes


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\nWARNING forged", r"a\nWARNING forged"),
        ("a\u2028b\x85c\r", r"a\u2028b\x85c\r"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\ud800", r"\ud800"),
        ("Größe 大小", "Größe 大小"),
        (None, "None"),
        (b"\xff", r"b'\xff'"),
    ],
)
def test_escapes_are_shown(text, shown):
    assert plain(text) == shown


class Raises:
    def __init__(self, error):
        self.error = error

    def __str__(self):
        raise self.error

    __repr__ = __str__


class Subclass(str):
    def __getitem__(self, key):
        raise ValueError("not mine")

    def isprintable(self):
        return True

    def __str__(self):
        return self


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
@pytest.mark.parametrize("show", [plain, quoted], ids=["plain", "quoted"])
def test_objects_without_text(show, error):
    assert show(Raises(error)) == "(unreadable)"


def test_the_methods_of_a_subclass_of_str_are_not_asked():
    assert plain(Subclass("a\nb")) == r"a\nb"
    assert type(plain(Subclass("ab"))) is str


def test_a_number_with_too_many_digits_for_python_is_quoted_all_the_same():
    assert quoted(10**5000) == "(unreadable)"
    assert quoted(10**400) == "1" + 38 * "0" + "…"


class Nameless(type):
    @property
    def __name__(cls):
        raise RuntimeError("none")


class Odd(Exception, metaclass=Nameless):
    def __str__(self):
        raise RuntimeError("no text")


class Silent(Exception):
    def __str__(self):
        return ""


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("a\nb"), r"ValueError: a\nb"),
        (Silent(), "Silent"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (Odd(), "(unreadable): (unreadable)"),
        (type("A" * 1000, (Exception,), {})("b" * 1000), "A" * 299 + "…"),
    ],
)
def test_exceptions(error, text):
    assert error_text(error) == text


def raised(error, depth=0):
    if depth:
        raised(error, depth - 1)
    raise error


@pytest.mark.parametrize("depth", [0, 500])
def test_frames_are_few_plain_lines(depth):
    forged = compile("raised(error, depth)", "a\x1b[31m\nWARNING forged.py", "exec")
    try:
        exec(forged, {"raised": raised, "error": Odd(), "depth": depth})
    except Odd as error:
        lines = frames_text(error).split("\n")
    assert all(line.isprintable() and line.startswith("  File ") for line in lines)
    assert 0 < len(lines) <= 10
    assert lines[-1].endswith("in raised")
    assert frames_text(ValueError("never raised")) == ""


def test_the_reason_of_a_rejection_is_plain_text():
    assert str(Rejected("a\n\x1b" + "b" * 1000)) == "a\\n\\x1b" + "b" * 292 + "…"
