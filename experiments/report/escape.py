"""Escaping of untrusted text for each medium: names from recipes and options, and clients' own words."""

import html as standard
import re

from byzflower.flower.text import plain

_LONGEST = 4000
_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_TEX |= {character: "\\" + character for character in "&%$#_{}"}


def markdown(text: str) -> str:
    """Text within a line or a table's cell: no HTML, no links, no further cells."""
    return re.sub(r"([\\|\[\]])", r"\\\1", _one_line(text)).replace("<", "&lt;")


def html(text: str) -> str:
    """Text of an element, or of an attribute in quotes."""
    return standard.escape(_one_line(text))


def csv_cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula; a number stays one."""
    shown = plain(text, _LONGEST)
    return "'" + shown if shown.startswith(("=", "+", "-", "@")) and not _is_number(shown) else shown


def tex(text: str) -> str:
    """Text of a LaTeX document."""
    return "".join(_TEX.get(character, character) for character in _one_line(text))


def label(text: str) -> str:
    """Text of a matplotlib picture: no formula between dollars, not hidden by a leading underscore."""
    shown = plain(text, 200).replace("$", r"\$")
    return " " + shown if shown.startswith("_") else shown


def file_name(text: str) -> str:
    """A part of a file's name."""
    return re.sub(r"[^\w@.]+|\.\.+", "-", plain(text, 100))


def _one_line(text: str) -> str:
    """Paragraphs of recipes have line ends, which mean no more than spaces."""
    return plain(" ".join(text.split()), _LONGEST)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
