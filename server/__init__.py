"""One run: its configuration, rounds, adversary, engines, evaluation and records."""

from typing import TYPE_CHECKING

from byzflower.plugins import export_lazily

if TYPE_CHECKING:
    from byzflower.server.adversary.base import Adversary
    from byzflower.server.adversary.legacy import LegacyAdversary
    from byzflower.server.config.checks import ConfigError
    from byzflower.server.config.classification import RunConfig
    from byzflower.server.engines.inline import InlineGrid

export_lazily(__name__)

__all__ = ["Adversary", "ConfigError", "InlineGrid", "LegacyAdversary", "RunConfig"]
