"""How names find what they stand for: lazy packages, registries, and other people's packages."""

from byzflower.plugins.exports import export_lazily
from byzflower.plugins.imports import import_modules, module_names
from byzflower.plugins.registry import PluginError, Registry

__all__ = ["PluginError", "Registry", "export_lazily", "import_modules", "module_names"]
