"""What can be learned: the kinds of configurations, by task."""

from collections.abc import Mapping
from typing import Any

from byzflower.clients.settings import options_of
from byzflower.server.config.checks import ConfigError, unknown_text
from byzflower.server.config.classification import RunConfig
from byzflower.server.config.recommendation import RecommendationConfig

Config = RunConfig | RecommendationConfig
CLASSIFICATION = RunConfig.TASK
TASKS: dict[str, type[RunConfig] | type[RecommendationConfig]] = {
    kind.TASK: kind for kind in (RunConfig, RecommendationConfig)
}


def make_config(options: Mapping[str, Any]) -> Config:
    """Make the configuration of the named ``task``, by default a classifier's.

    Raises:
        ConfigError: an unknown task, or what `CommonConfig.make` says.
    """
    task = options.get("task", CLASSIFICATION)
    if task not in TASKS:
        raise ConfigError(unknown_text("task", str(task), TASKS))
    return TASKS[task].make({k: v for k, v in options.items() if k != "task"})


def config_from_flower(run_config: Mapping[str, Any]) -> Config:
    """Make a configuration of a Flower run config; see `options_of`.

    An app lists the options of all tasks; those that this one does not have are ignored.

    Raises:
        ConfigError: see `make_config`.
    """
    options = options_of(run_config)
    kind = TASKS.get(str(options.get("task", CLASSIFICATION)), RunConfig)
    others = {name for other in TASKS.values() for name in other.model_fields} - set(kind.model_fields)
    return make_config({k: v for k, v in options.items() if k == "task" or k not in others})
