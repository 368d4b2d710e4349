"""What every run has, whatever is learned; and the hash that stands for it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from byzflower.clients.settings import OptionValue, RunSettings, parse_options
from byzflower.server.config.checks import ConfigError, name_fault, readable, unknown_text

# Version of what results mean and of what the defaults are. A run's hash leaves out the options that have
# their defaults, so that a new option changes no hash. Whoever changes a default, or what an option does,
# adds one here; else runs of before would be taken for runs of after.
FORMAT = 2
# Options that say where and how a run is computed, not what: results do not depend on them.
_EXECUTION = frozenset(
    {
        "engine",
        "nodes",
        "clients_per_node",
        "num_cpus",
        "num_gpus",
        "ray_address",
        "round_timeout",
        "max_round_bytes",
        "identity",
        "out",
        "name",
        "data",
        "imports",
    }
)


class CommonConfig(RunSettings):
    """What every run has, whatever is learned: a rule, rounds, and where and how it is computed."""

    TASK: ClassVar[str]

    strategy: str = Field("multikrum", description="aggregation rule (see --list)")
    strategy_options: dict[str, OptionValue] = Field(
        {}, description="the rule's parameters; num_byzantine defaults to --byzantine, lr to --lr"
    )
    rounds: int = Field(15, ge=1, description="rounds of training")
    eval_every: int = Field(1, ge=1, description="evaluate every so many rounds")
    max_skipped_rounds: int = Field(3, ge=1, description="skipped rounds in a row that end the run")
    engine: Literal["ray", "inline", "deployment"] = Field(
        "ray", description="Flower's Ray engine, this process, or (flwr run) real nodes, one client each"
    )
    nodes: int = Field(0, ge=0, description="virtual nodes; 0 for one per CPU that a node uses")
    clients_per_node: int = Field(0, ge=0, description="instead of --nodes; 1 is ordinary Flower")
    num_cpus: float = Field(1.0, gt=0, description="CPUs per node (fractions allowed)")
    num_gpus: float = Field(
        -1.0, ge=-1, description="GPUs per node (fractions allowed); -1 shares what is there"
    )
    ray_address: str = Field("", description="address of an existing Ray cluster")
    round_timeout: float = Field(600.0, gt=0, description="seconds to wait for a round's replies")
    identity: Literal["claimed", "node"] = Field(
        "claimed", description="deployment: clients are known by the id they claim, or by their node's id"
    )
    out: str = Field("runs", description="folder for results")
    name: str = Field(
        "", description="name of the run, folders in it with /; default from data set, attack and strategy"
    )

    @property
    def metrics(self) -> tuple[str, ...]:
        """Scores that are recorded; the first is the one that runs are compared by."""
        raise NotImplementedError

    @field_validator("strategy_options", mode="before")
    @classmethod
    def _parse_strategy_options(cls, value: object) -> dict[str, OptionValue]:
        return parse_options(value)

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if value and (fault := name_fault(value)):
            raise ValueError(fault)
        return value

    @field_validator("out")
    @classmethod
    def _check_out(cls, value: str) -> str:
        if "\0" in value:
            raise ValueError("no folder's name has a null character in it")
        return value

    @model_validator(mode="after")
    def _one_way_to_say_nodes(self) -> Self:
        if self.nodes and self.clients_per_node:
            raise ValueError("give either nodes or clients-per-node, not both")
        return self

    @property
    def deployed(self) -> bool:
        """Whether every node is one client, with an id of its own; else the server assigns cohorts."""
        return self.engine == "deployment"

    # -- names -------------------------------------------------------------------------------------

    def config_hash(self) -> str:
        """Hash of what results depend on, but the seed: the format and the options without their defaults."""
        own = self.model_dump(exclude={*_EXECUTION, "seed", "task"}, exclude_defaults=True)
        content = {"format": FORMAT, "task": self.TASK, "options": own}
        return digest_of(content)

    def run_name(self) -> str:
        """The run's name: given, or data set, attack and strategy."""
        return self.name or f"{self.dataset}-{self.attack}-{self.strategy}"

    def folder(self) -> Path:
        """Where the run's results are: ``<out>/<name>/<config hash>-<seed>``."""
        return Path(self.out) / self.run_name() / f"{self.config_hash()}-{self.seed}"

    # -- making ------------------------------------------------------------------------------------

    @classmethod
    def make(cls, options: Mapping[str, Any]) -> Self:
        """Make a configuration of named options.

        Raises:
            ConfigError: one line per mistake, naming the option.
        """
        unknown = [
            unknown_text("option", key, cls.model_fields) for key in options if key not in cls.model_fields
        ]
        if unknown:
            raise ConfigError("\n".join(unknown))
        try:
            return cls(**options)
        except ValidationError as error:
            raise ConfigError("\n".join(readable(e) for e in error.errors())) from None


def digest_of(content: Mapping[str, Any]) -> str:
    """A short hash of named values, in ten hexadecimal digits."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=5).hexdigest()
