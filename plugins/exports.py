"""Packages that import what they export only when it is asked for."""

import ast
import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any


class _LazyPackage(ModuleType):
    """A package whose exports are the imports under its ``if TYPE_CHECKING:``."""

    def __getattr__(self, name: str) -> Any:
        source = _exports(self.__name__).get(name)
        if source is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}", name=name, obj=self)
        value = getattr(import_module(source), name)
        super().__setattr__(name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        # The import system makes every submodule an attribute of its package; where an export has the name of
        # a submodule (the function `strategies.krum`), the export goes before, in whatever order they come.
        if isinstance(value, ModuleType) and (source := _exports(self.__name__).get(name)) is not None:
            value = getattr(import_module(source), name)
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_exports(self.__name__)})


def export_lazily(package: str) -> None:
    """Let a package import what stands under its ``if TYPE_CHECKING:`` when it is first asked for.

    Type checkers and editors read those lines as ordinary imports; so does this function, so that what is
    exported, and from where, is written once.

    Args:
        package: its ``__name__``.
    """
    sys.modules[package].__class__ = _LazyPackage


@cache
def _exports(package: str) -> dict[str, str]:
    """Name -> module, of the lines ``from module import name`` under ``if TYPE_CHECKING:``."""
    return {
        alias.name: line.module
        for block in ast.parse(source_of(package)).body
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for line in block.body
        if isinstance(line, ast.ImportFrom) and line.module is not None
        for alias in line.names
    }


def source_of(module: str) -> str:
    """The source text of a module, which is not imported for it (the packages around it are).

    Raises:
        ImportError: there is no such module, or it has no source.
    """
    spec = find_spec(module)
    read = getattr(spec and spec.loader, "get_source", None)
    source = read(module) if read is not None else None
    if not isinstance(source, str):
        raise ImportError(f"the source of {module} is not there", name=module)
    return source
