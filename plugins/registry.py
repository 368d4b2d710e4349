"""What a name on the command line or in a recipe stands for: ours, registered, or of an installed package."""

import ast
import inspect
import logging
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, NamedTuple, TypeVar

from byzflower.plugins.exports import source_of

T = TypeVar("T")

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_LOG = logging.getLogger(__name__)


class PluginError(ValueError):
    """Something of another package cannot be had; the message says what, whose it is, and why."""


class _Place(NamedTuple):
    """Where to find what a name stands for.

    Attributes:
        target: ``module:attribute``.
        package: the distribution that offers it as an entry point; empty for what is ours.
        fault: why it cannot be had, if that is known already.
    """

    target: str
    package: str = ""
    fault: str = ""


class Registry(Mapping[str, T]):
    """Things by name, each imported when it is first looked up.

    Ours are a table of places. Others are added by `register`, or come with packages that are installed:
    as entry points of the registry's group, which are read once, when a name is asked for that is not ours
    (or all names are). One that is broken costs its own name alone.
    """

    def __init__(self, kind: str, group: str, places: Mapping[str, str], base: str = "") -> None:
        """Make a registry.

        Args:
            kind: what the things are, in error messages.
            group: of the entry points.
            places: name -> ``module:attribute``.
            base: ``module:class`` that all of them derive from; empty for anything that can be called.
        """
        self.kind = kind
        self._group = group
        self._base = base
        self._places = {name: _Place(target) for name, target in places.items()}
        self._things: dict[str, T] = {}
        self._knows_packages = False

    def __getitem__(self, name: str) -> T:
        if name not in self._things:
            if name not in self._places:
                self._look_at_packages()
            place = self._places[name]
            self._things[name] = self._checked(name, self._load(name, place), place)
        return self._things[name]

    def __contains__(self, name: object) -> bool:
        if name not in self._places:
            self._look_at_packages()
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        self._look_at_packages()
        return iter([*self._places])

    def __len__(self) -> int:
        self._look_at_packages()
        return len(self._places)

    def __repr__(self) -> str:
        return f"Registry({self.kind}: {', '.join(self)})"

    def register(self, name: str, thing: T, *, replace: bool = False) -> None:
        """Add something under a name, in this process.

        What has the same module and name as before takes its place, as where a notebook's cell runs again.

        Args:
            name: lower-case letters, digits, ``-`` and ``_``.
            thing: what it stands for.
            replace: whether it may take the place of what has the name already.

        Raises:
            PluginError: the name is taken, or is none; or this is no such thing.
        """
        if fault := _name_fault(name):
            raise PluginError(f"{self.kind} {name!r}: {fault}")
        place = _Place(f"{getattr(thing, '__module__', '?')}:{getattr(thing, '__qualname__', '?')}")
        if name in self and not replace and self._places[name].target != place.target:
            raise PluginError(
                f"there is a {self.kind} {name!r} already ({self._places[name].target}); "
                "replace=True puts another one in its place"
            )
        self._things[name] = self._checked(name, thing, place)
        self._places[name] = place

    def unregister(self, name: str) -> None:
        """Forget a name.

        Raises:
            KeyError: there is none.
        """
        self._look_at_packages()
        del self._places[name]
        self._things.pop(name, None)

    def summary(self, name: str) -> str:
        """First line of the documentation, read from the source without importing it, where that is possible.

        Raises:
            KeyError: there is no such name.
            PluginError: it has to be imported, and cannot be.
        """
        if name in self and name not in self._things and not self._places[name].fault:
            text = _documentation(self._places[name].target)
        else:
            text = None
        text = text or inspect.getdoc(self[name]) or ""
        return text.splitlines()[0] if text else ""

    def faults(self) -> dict[str, str]:
        """Names of other packages' things that cannot be had, and why."""
        faults = {}
        for name in self:
            if self._places[name].package:
                try:
                    self[name]
                except PluginError as error:
                    faults[name] = str(error)
        return faults

    # -- other people's packages -----------------------------------------------------------------------

    def _look_at_packages(self) -> None:
        if self._knows_packages:
            return
        self._knows_packages = True
        from importlib.metadata import entry_points  # late: only for names that are not ours

        for entry in entry_points(group=self._group):
            package = entry.dist.name if entry.dist is not None else "an unknown package"
            before = self._places.get(entry.name)
            if fault := _name_fault(entry.name):
                _LOG.warning("%s %r of package %s: %s", self.kind, entry.name, package, fault)
            elif before is None:
                self._places[entry.name] = _Place(entry.value, package)
            elif before.package:
                both = f"packages {before.package} and {package} both have a {self.kind} of this name"
                self._places[entry.name] = before._replace(fault=both)
            else:
                text = "%s %r of package %s is left out: byzflower has one of this name"
                _LOG.warning(text, self.kind, entry.name, package)

    def _load(self, name: str, place: _Place) -> Any:
        if not place.package:
            return find(place.target)
        try:
            if place.fault:
                raise ImportError(place.fault)
            return find(place.target)
        except Exception as error:  # whatever somebody else's module raises
            reason = str(error) if place.fault else f"{type(error).__name__}: {error}"
            raise PluginError(
                f"{self.kind} {name!r} of package {place.package} cannot be loaded: {reason}"
            ) from error

    def _checked(self, name: str, thing: Any, place: _Place) -> T:
        """The thing itself, if it is what the registry is for."""
        base = find(self._base) if self._base else None
        fits = callable(thing) if base is None else isinstance(thing, type) and issubclass(thing, base)
        if not fits:
            wanted = "something to call" if base is None else f"a class derived from {base.__name__}"
            whose = f" of package {place.package}" if place.package else ""
            raise PluginError(f"{self.kind} {name!r}{whose} must be {wanted}, got {thing!r:.100}")
        found: T = thing
        return found


def find(target: str) -> Any:
    """Import ``module:attribute``."""
    module, _, attributes = target.partition(":")
    found: Any = import_module(module)
    for attribute in attributes.split("."):
        found = getattr(found, attribute)
    return found


def _name_fault(name: str) -> str:
    if name == "none":
        return "this name stands for nothing"
    return "" if _NAME.fullmatch(name) else "a name is made of lower-case letters, digits, - and _"


def _documentation(target: str) -> str | None:
    """Documentation of a class or function at the top of a module, from the module's source."""
    module, _, name = target.partition(":")
    try:
        tree = ast.parse(source_of(module))
    except Exception:  # whoever loads it gets to know what is wrong
        return None
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return ast.get_docstring(node)
    return None
