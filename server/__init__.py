"""One run: its configuration, rounds, adversary, engines, evaluation and records."""

from byzflower.server.adversary.base import Adversary
from byzflower.server.adversary.legacy import LegacyAdversary
from byzflower.server.config.classification import ConfigError, RunConfig
from byzflower.server.engines.inline import InlineGrid

__all__ = ["Adversary", "ConfigError", "InlineGrid", "LegacyAdversary", "RunConfig"]
