"""Draws docs/images/architecture.svg: the package's folders in layers, and who imports whom.

    python docs/architecture.py

Everything is read from the repository: the layers from pyproject.toml (the contract that import-linter
holds), what a folder is from its docstring, and the arrows from the imports in its modules. An arrow's number
counts the modules of one folder that import from the other.
"""

import ast
import textwrap
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from html import escape
from itertools import chain
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "architecture.svg"
PACKAGE = "byzflower"

# In pixels, but for the letters in a line.
_WIDTH, _MARGIN, _GAP = 1080, 20, 84
_BOX, _HEIGHT, _LETTERS = 220, 84, 34
_COLOURS = ["#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#e15759", "#76b7b2", "#9c755f", "#d37295", "#8c6d31"]

Layers = list[list[str]]
Imports = Counter[tuple[str, str]]


class Box(NamedTuple):
    """Where a folder is drawn: its upper left corner."""

    x: float
    y: float


def layers() -> Layers:
    """The folders, layer by layer, as import-linter is told."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (rows,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [[name.strip().removeprefix(f"{PACKAGE}.") for name in row.split("|")] for row in rows]


def modules(folder: str) -> list[Path]:
    """The Python files of a folder."""
    return sorted((ROOT / folder).rglob("*.py"))


def imports(folders: Sequence[str]) -> Imports:
    """(folder, imported folder) -> how many modules of the one import from the other."""
    counts: Imports = Counter()
    for folder in folders:
        for path in modules(folder):
            counts.update((folder, other) for other in set(_imported(path)) if other != folder)
    return counts


def _imported(path: Path) -> Iterator[str]:
    """The package's folders that a module imports from, also where it does so late or for types alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for package, _, rest in (name.partition(".") for name in names):
            if package == PACKAGE and rest:
                yield rest.partition(".")[0]


def draw() -> str:
    """The picture, as SVG."""
    rows = layers()
    folders = [*chain.from_iterable(rows)]
    boxes = {
        folder: Box((column + 0.5) * _WIDTH / len(row) - _BOX / 2, _MARGIN + i * (_HEIGHT + _GAP))
        for i, row in enumerate(rows)
        for column, folder in enumerate(row)
    }
    size = {"width": _WIDTH, "height": len(rows) * (_HEIGHT + _GAP) - _GAP + 2 * _MARGIN}
    colours = dict(zip(folders, _COLOURS * len(folders), strict=False))
    parts = [
        _element("rect", fill="#ffffff", **size),
        *_arrows(imports(folders), boxes, colours),
        *chain.from_iterable(_box(folder, boxes[folder], colours[folder]) for folder in folders),
    ]
    view = f'viewBox="0 0 {size["width"]} {size["height"]}" font-family="sans-serif" font-size="11"'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {view}>', *parts, "</svg>", ""])


def _arrows(counts: Imports, boxes: dict[str, Box], colours: dict[str, str]) -> Iterator[str]:
    """Arrows from the lower edge of a box to the upper edge of another; then a number at the head of each."""
    numbers = []
    for (source, target), count in sorted(counts.items()):
        colour = colours[source]
        x1 = _place(source, [t for s, t in counts if s == source], target, boxes)
        x2 = _place(target, [s for s, t in counts if t == target], source, boxes)
        y1, y2 = boxes[source].y + _HEIGHT, boxes[target].y
        bend = min((y2 - y1) / 2, _GAP)
        curve = f"M{x1:.0f} {y1:.0f} C{x1:.0f} {y1 + bend:.0f} {x2:.0f} {y2 - bend:.0f} {x2:.0f} {y2 - 7:.0f}"
        width = f"{1 + count**0.5 / 2:.1f}"
        yield _element("path", d=curve, fill="none", stroke=colour, stroke_width=width, stroke_opacity="0.75")
        yield _element("path", d=f"M{x2 - 4:.0f} {y2 - 8:.0f} h8 l-4 8 z", fill=colour)
        halo = {"stroke": "#ffffff", "stroke_width": "3", "paint_order": "stroke"}
        numbers.append(_text(count, x2, y2 - 11, fill="#222222", text_anchor="middle", **halo))
    yield from numbers


def _place(folder: str, others: Sequence[str], other: str, boxes: dict[str, Box]) -> float:
    """Where the arrow to or from another folder meets this one's box: in order, as the others lie."""
    order = sorted(others, key=lambda name: (boxes[name].x, boxes[name].y))
    return boxes[folder].x + _BOX * (order.index(other) + 1) / (len(order) + 1)


def _box(folder: str, box: Box, colour: str) -> Iterator[str]:
    text = ast.get_docstring(ast.parse((ROOT / folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    left, right, top = box.x + 10, box.x + _BOX - 10, box.y + 20
    place = {"x": f"{box.x:.0f}", "y": f"{box.y:.0f}", "width": _BOX, "height": _HEIGHT, "rx": 8}
    yield _element("rect", fill="#fafafa", stroke=colour, stroke_width=2, **place)
    yield _text(f"{folder}/", left, top, font_size=15, font_weight="bold", fill="#111111")
    yield _text(f"{len(modules(folder))} files", right, top, text_anchor="end", fill="#777777")
    for i, line in enumerate(textwrap.wrap(text.splitlines()[0].removesuffix("."), _LETTERS)):
        yield _text(line, left, top + 19 + 14 * i, fill="#444444")


def _text(text: object, x: float, y: float, **attributes: object) -> str:
    return _element("text", escape(str(text)), x=f"{x:.0f}", y=f"{y:.0f}", **attributes)


def _element(tag: str, content: str = "", **attributes: object) -> str:
    """An SVG element; underscores in the names of attributes stand for hyphens."""
    named = " ".join(f'{name.replace("_", "-")}="{value}"' for name, value in attributes.items())
    return f"<{tag} {named}>{content}</{tag}>" if content else f"<{tag} {named}/>"


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
