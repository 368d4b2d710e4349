"""Modules that are imported because somebody named them, for what they register."""

import re
import traceback
from collections.abc import Iterable
from importlib import import_module

from byzflower.plugins.registry import PluginError

_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def module_names(given: object) -> tuple[str, ...]:
    """Names of modules, as a list or with commas between.

    Raises:
        ValueError: not of this form.
    """
    parts = [given] if isinstance(given, str) else given
    if not isinstance(parts, Iterable) or not all(isinstance(part, str) for part in parts):
        raise ValueError("modules must be names, with commas between")
    names = [name.strip() for part in parts for name in str(part).split(",") if name.strip()]
    for name in names:
        if not _MODULE.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a module, as in my_package.rules")
    return tuple(dict.fromkeys(names))


def import_modules(names: Iterable[str]) -> None:
    """Import modules by name; what they register is there afterwards, in this process.

    Raises:
        PluginError: one of them cannot be imported; the message says why, and where.
    """
    for name in names:
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            missing = error.name or name
            if name == missing or name.startswith(f"{missing}."):
                raise PluginError(f"there is no module {name} (is its folder on PYTHONPATH?)") from None
            raise PluginError(_fault(name, error)) from error
        except Exception as error:  # whatever somebody else's module raises
            raise PluginError(_fault(name, error)) from error


def _fault(name: str, error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{name} cannot be imported: {type(error).__name__}: {error} ({last.filename}:{last.lineno})"
