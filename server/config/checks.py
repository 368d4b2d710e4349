"""A user's mistakes in names and options, found and told."""

import difflib
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

if TYPE_CHECKING:  # the command line checks names without torch
    from byzflower.attacks import Attack, Need

_ANY_TYPE = ConfigDict(arbitrary_types_allowed=True)
# Names of runs become folders.
_LONGEST_NAME = 200
_NOT_IN_NAMES = frozenset('\\:*?"<>|')
_RESERVED = re.compile(r"(con|prn|aux|nul|(com|lpt)\d)(\..*)?", re.IGNORECASE)
# What the data decides about a model, and the server's data about a rule.
_NOT_OPTIONS = frozenset({"input_shape", "num_classes", "num_items", "root_upload", "pack_size", "densify"})


class ConfigError(ValueError):
    """A mistake of the user's; the message names the option."""


def name_fault(name: str) -> str:
    """Why runs cannot have this name, which is a path in `out` and must stay there; empty if they can."""
    if len(name.encode(errors="replace")) > _LONGEST_NAME:
        return f"a name has at most {_LONGEST_NAME} bytes"
    if not name.isprintable() or set(name) & _NOT_IN_NAMES:
        return f"a name has neither control characters nor any of {' '.join(sorted(_NOT_IN_NAMES))}"
    for part in name.split("/"):
        if not part or part != part.strip() or part.startswith(".") or part.endswith("."):
            return "no part of a name, between slashes, is empty or begins or ends with a dot or a space"
        if _RESERVED.fullmatch(part):
            return f"some systems reserve the name {part}"
    return ""


def readable(error: Any) -> str:
    """One of pydantic's errors, with the option's name."""
    message = str(error["msg"]).removeprefix("Value error, ")
    where = ".".join(str(part) for part in error["loc"])
    if not where:
        return message
    return f"{where.replace('_', '-')}: {message} (got {error['input']!r:.60})"


def unknown_name(option: str, name: str, registry: Collection[str]) -> list[str]:
    """The mistake of a name that is not there, if it is one."""
    return [] if name in registry else [unknown_text(option, name, registry)]


def unknown_text(what: str, name: str, registry: Collection[str]) -> str:
    """Say that a name is unknown, which one was probably meant, and which there are."""
    close = difflib.get_close_matches(name.lower(), list(registry), n=1, cutoff=0.4)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown {what} {name!r}{hint} (known: {', '.join(sorted(registry))})"


def unknown_options(option: str, owner: Callable[..., Any] | None, given: Mapping[str, Any]) -> list[str]:
    """Parameters that the attack or rule does not have, or that have another type."""
    if owner is None:
        return [f"{option}: there is nothing to give {', '.join(given)} to"] if given else []
    known = [
        name
        for name, parameter in inspect.signature(owner).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD and name not in _NOT_OPTIONS
    ]
    if given and not known:
        return [f"{option}: {getattr(owner, '__name__', owner)} has no parameters, got {', '.join(given)}"]
    types, mistakes = get_type_hints(owner.__init__), []
    for name, value in given.items():
        if name not in known:
            mistakes.append(f"{option}: {unknown_text('parameter', name, known)}")
            continue
        try:
            TypeAdapter(types[name], config=_ANY_TYPE).validate_python(value)
        except ValidationError as error:
            mistakes.append(f"{option}: {name}: {error.errors()[0]['msg']} (got {value!r:.60})")
    return mistakes


def unmet_needs(name: str, attack: "type[Attack]", offers: "Collection[Need]") -> list[str]:
    """What an attack cannot be carried out without, and what the run does not offer."""
    return [f"attack {name} needs {need}" for need in sorted(attack.needs.difference(offers))]
