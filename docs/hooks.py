"""Pages that list what the registries hold, so that new rules and attacks appear by themselves."""

import inspect
from typing import Any

from byzflower.attacks import ATTACKS, MASK_ATTACKS
from byzflower.attacks.items import ITEM_ATTACKS
from byzflower.strategies import STRATEGIES
from byzflower.strategies.items import ITEM_STRATEGIES

_MARKERS = {
    "<!-- rules -->": STRATEGIES,
    "<!-- attacks -->": ATTACKS,
    "<!-- mask attacks -->": MASK_ATTACKS,
    "<!-- item rules -->": ITEM_STRATEGIES,
    "<!-- item attacks -->": ITEM_ATTACKS,
}


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Replace a marker by a table of a registry, and the documentation of its classes and functions."""
    for marker, registry in _MARKERS.items():
        if marker in markdown:
            markdown = markdown.replace(marker, _page(registry))
    return markdown


def _page(registry: dict[str, type]) -> str:
    lines = ["| name | what it does |", "|---|---|"]
    for name in sorted(registry):
        summary = (inspect.getdoc(registry[name]) or "").splitlines()[0]
        lines.append(f"| [`{name}`](#{_path(registry[name])}) | {summary} |")
    lines.append("")
    for name in sorted(registry):
        lines += [f"## {name}\n", f"::: {_path(registry[name])}\n"]
        module = inspect.getmodule(registry[name])
        for function in vars(module).values():
            public = inspect.isfunction(function) and not function.__name__.startswith("_")
            if public and function.__module__ == module.__name__:
                lines.append(f"::: {function.__module__}.{function.__name__}\n")
    return "\n".join(lines)


def _path(owner: type) -> str:
    return f"{owner.__module__}.{owner.__qualname__}"
