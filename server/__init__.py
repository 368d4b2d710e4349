"""Server side: configuration, adversary, engines, evaluation, results and the command line."""

from byzflower.server.adversary import Adversary
from byzflower.server.config import ConfigError, RunConfig
from byzflower.server.inline import InlineGrid
from byzflower.server.legacy_adversary import LegacyAdversary

__all__ = ["Adversary", "ConfigError", "InlineGrid", "LegacyAdversary", "RunConfig"]
