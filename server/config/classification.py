"""A run's complete configuration, checked before anything starts."""

import difflib
import hashlib
import inspect
import json
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_type_hints

import numpy as np
import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from byzflower.attacks import (
    ATTACKS,
    MASK_ATTACKS,
    Attack,
    AttackView,
    CollusiveAttack,
    Knowledge,
    Need,
    TensorColumns,
)
from byzflower.clients.settings import ClientSettings, OptionValue, RunSettings, parse_options
from byzflower.datasets import DATASETS, FEEDBACK
from byzflower.models import MODELS
from byzflower.models.recommenders import STATELESS
from byzflower.server.recommender_evaluation import RANKS
from byzflower.server.root import make_root_upload
from byzflower.strategies import (
    ARFRS,
    PRE_AGGREGATIONS,
    STRATEGIES,
    MomentsStrategy,
    PreAggregation,
    RobustStrategy,
    TooFewClients,
)
from byzflower.strategies.fltrust import RootUpload
from byzflower.strategies.options import Identity
from byzflower.uploads.topk import TopK

_ANY_TYPE = ConfigDict(arbitrary_types_allowed=True)


class ConfigError(ValueError):
    """A mistake of the user's; the message names the option."""


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
    }
)
# Names of runs become folders.
_LONGEST_NAME = 200
_NOT_IN_NAMES = frozenset('\\:*?"<>|')
_RESERVED = re.compile(r"(con|prn|aux|nul|(com|lpt)\d)(\..*)?", re.IGNORECASE)
# What the data decides about a model, and the server's data about a rule.
_NOT_OPTIONS = frozenset({"input_shape", "num_classes", "num_items", "root_upload", "pack_size", "densify"})


class CommonConfig(RunSettings):
    """What every run has, whatever is learned: a rule, rounds, and where and how it is computed."""

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
    identity: Identity = Field(
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
        """Hash of everything that results depend on, but the seed."""
        content = {k: v for k, v in self.model_dump().items() if k not in _EXECUTION | {"seed"}}
        digest = hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=5)
        return str(digest.hexdigest())

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
            raise ConfigError("\n".join(_readable(e) for e in error.errors())) from None


class RunConfig(ClientSettings, CommonConfig):
    """Everything that determines a run. Field names, in kebab-case, are the options everywhere."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """See `CommonConfig`."""
        if self.recommends:
            return tuple(f"{name}@{k}" for name in ("precision", "recall") for k in range(1, RANKS + 1))
        return ("accuracy", "top5", "loss")

    pre: str = Field("", description="pre-aggregations before the rule, e.g. bucketing(s=2),nnm (see --list)")
    pack_size: int = Field(64, ge=1, description="scalars in a pack of a topk upload")
    densify: Literal["zero", "contributors"] = Field(
        "zero", description="topk: packs that a client did not send count as 0, or without that client"
    )
    root_samples: int = Field(
        100, ge=1, description="clean training samples that the server itself holds, for fltrust"
    )
    server_lr: float = Field(1.0, gt=0, description="server step size")
    lr_decay_rounds: tuple[int, ...] = Field(
        (), description="rounds after which the server step size decays, as 75,90"
    )
    lr_decay: float = Field(0.1, gt=0, le=1, description="factor by which it decays")
    fraction_train: float = Field(1.0, gt=0, le=1, description="share of the clients trained each round")
    balanced_sampling: bool = Field(
        False, description="train the same share of Byzantine and of honest clients in every round"
    )
    evaluate_clients: bool = Field(False, description="let the clients evaluate too")
    max_client_weight: float | None = Field(
        None, gt=0, le=1, description="cap on a client's share of the weights"
    )
    max_round_bytes: int = Field(
        0, ge=0, description="refuse a round whose uploads need more server memory; 0 for no limit"
    )
    diagnostics: bool = Field(
        False, description="record every round how the attack lies among the benign updates"
    )
    embed_rounds: tuple[int, ...] = Field(
        (), description="rounds whose updates are drawn in the plane (their skew; of moments, all), as 1,10"
    )

    @field_validator("pre")
    @classmethod
    def _check_pre(cls, value: str) -> str:
        faults: list[str] = []
        for name, options in parse_calls(value):
            faults += unknown_name("pre-aggregation", name, PRE_AGGREGATIONS)
            faults += unknown_options(name, PRE_AGGREGATIONS.get(name), options)
        if faults:
            raise ValueError("; ".join(faults))
        return value

    @field_validator("max_client_weight", mode="before")
    @classmethod
    def _none_for_nothing(cls, value: object) -> object:
        return None if value in ("", "none", 0) else value

    @field_validator("lr_decay_rounds", "embed_rounds", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, int) and not isinstance(value, bool):
            return (value,)
        return [v for v in value.split(",") if v.strip()] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        mistakes = [
            *unknown_name("dataset", self.dataset, {**DATASETS, **FEEDBACK}),
            *unknown_name("model", self.model, {**MODELS, **STATELESS}),
            *unknown_name("attack", self.attack, {**ATTACKS, "none": None}),
            *unknown_name("mask-attack", self.mask_attack, {**MASK_ATTACKS, "none": None}),
            *unknown_name("strategy", self.strategy, STRATEGIES),
            *unknown_options("attack-options", ATTACKS.get(self.attack), self.attack_options),
            *unknown_options(
                "mask-attack-options", MASK_ATTACKS.get(self.mask_attack), self.mask_attack_options
            ),
            *unknown_options("model-options", {**MODELS, **STATELESS}.get(self.model), self.model_options),
            *unknown_options("upload-options", TopK if self.upload == "topk" else None, self.upload_options),
            *unknown_options("strategy-options", STRATEGIES.get(self.strategy), self.strategy_options),
        ]
        mistakes += self._mismatches()
        if self.mask_attack != "none" and self.upload != "topk":
            mistakes.append(f"mask-attack needs upload=topk, got upload={self.upload}")
        if self.byzantine >= self.clients:
            mistakes.append(f"byzantine must be below clients={self.clients}, got {self.byzantine}")
        for name in ("lr_decay_rounds", "embed_rounds"):
            rounds = getattr(self, name)
            if any(round < 1 for round in rounds) or list(rounds) != sorted(set(rounds)):
                mistakes.append(f"{name.replace('_', '-')} must be ascending and at least 1, got {rounds}")
        if not mistakes:
            mistakes += [*self._attack_faults(), *self._rule_faults()]
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return self

    def _mismatches(self) -> list[str]:
        """Data set, model, strategy and attack that do not go together."""
        mistakes = []
        if self.recommends != (self.model in STATELESS) and self.model in {**MODELS, **STATELESS}:
            kind = "recommenders'" if self.recommends else "classifiers'"
            models = sorted(STATELESS if self.recommends else MODELS)
            mistakes.append(f"{kind} data set {self.dataset} needs one of the models {', '.join(models)}")
        strategy = STRATEGIES.get(self.strategy, RobustStrategy)
        if self.recommends and not issubclass(strategy, MomentsStrategy):
            mistakes.append(f"data set {self.dataset} needs a strategy that keeps moments, as arfrs")
        offers = self.offers | ({Need.ADAM} if issubclass(strategy, ARFRS) else frozenset())
        return mistakes + unmet_needs(self.attack, ATTACKS.get(self.attack, Attack), offers)

    def _attack_faults(self) -> list[str]:
        """Try the attack on as many (tiny) uploads as a full round brings."""
        n = self.clients_per_round
        f = round(n * self.byzantine / self.clients)
        try:
            TopK(**self.upload_options)  # type: ignore[arg-type]
        except ValueError as error:
            return [f"upload-options: {error}"]
        try:
            self.make_mask_attack()
        except ValueError as error:
            return [f"mask-attack-options: {error}"]
        try:
            attack = self.make_attack()
            if isinstance(attack, CollusiveAttack) and f:
                colluding = attack.knowledge is Knowledge.COLLUDING
                known = not colluding and self.strategy_options.get("inspect") != "parameters"
                attack.craft(
                    AttackView(
                        benign=torch.zeros(f if colluding else n - f, 1),
                        num_byzantine=f,
                        num_clients=n,
                        previous_aggregate=None,
                        round=1,
                        generator=torch.Generator(),
                        tensors=(TensorColumns("weight", (1, 1), slice(0, 1)),),
                        aggregate=(lambda crafted: crafted[0]) if known else None,
                    )
                )
        except (TypeError, ValueError) as error:
            return [f"attack-options: {error}"]
        return []

    def _rule_faults(self) -> list[str]:
        """Try the rule on as many (tiny) uploads as a full round brings."""
        n = self.clients_per_round
        try:
            self.make_pre()
        except (TypeError, ValueError) as error:
            return [f"pre: {error}"]
        try:
            rule = self.make_strategy(root_upload=lambda server_round, arrays: arrays)
            rule.set_global(1, {"weight": np.zeros(1, np.float32)})
            rule.apply(torch.zeros(n, 1), torch.full((n,), 1 / n, dtype=torch.float64))
        except TooFewClients as error:
            return [f"strategy {self.strategy}: {error}"]
        except (TypeError, ValueError) as error:
            return [f"strategy-options: {error}"]
        return []

    # -- parts -------------------------------------------------------------------------------------

    def make_pre(self) -> list[PreAggregation]:
        """Make the pre-aggregations; f is the rule's if they name none, else --byzantine.

        Raises:
            ValueError: a parameter is missing or out of its range.
        """
        steps = []
        for name, options in parse_calls(self.pre):
            make: Any = PRE_AGGREGATIONS[name]
            if "num_byzantine" in inspect.signature(make).parameters:
                own = self.strategy_options.get("num_byzantine", self.believed_byzantine)
                options.setdefault("num_byzantine", own)
            steps.append(make(**options))
        return steps

    @property
    def believed_byzantine(self) -> int | float:
        """F that rules are told if nothing else is said: --byzantine, or its share if few take part."""
        return self.byzantine if self.fraction_train == 1 else self.byzantine / self.clients

    def make_strategy(self, nodes: int = 1, root_upload: RootUpload | None = None) -> RobustStrategy:
        """Make the strategy, for rounds on at least `nodes` nodes.

        Args:
            nodes: how many to wait for.
            root_upload: what a client of the server's own would upload, for rules that compare with it;
                default one that trains on `root_samples` samples.
        """
        rule = STRATEGIES[self.strategy]
        parameters = inspect.signature(rule.__init__).parameters
        options: dict[str, Any] = dict(self.strategy_options)
        for name, own in (("num_byzantine", self.believed_byzantine), ("lr", self.lr)):
            if name in parameters:
                options.setdefault(name, own)
        if "root_upload" in parameters:
            options["root_upload"] = root_upload or make_root_upload(
                self.client_settings(), self.root_samples, self.upload
            )
        return rule(
            **options,
            pre=self.make_pre(),
            server_lr=self.server_lr,
            **self._upload_options(),
            max_client_weight=self.max_client_weight,
            max_skipped_rounds=self.max_skipped_rounds,
            max_round_bytes=self.max_round_bytes,
            num_clients=None if self.deployed else self.clients,
            identity=self.identity if self.deployed else "claimed",
            strata=self._strata(),
            seed=self.seed,
            fraction_train=self.fraction_train,
            fraction_evaluate=1.0 if self.evaluate_clients else 0.0,
            min_train_nodes=1,
            min_evaluate_nodes=1,
            min_available_nodes=nodes,
        )

    def _upload_options(self) -> dict[str, Any]:
        """How clients upload, for the strategy."""
        if self.upload != "topk":
            return {"upload": self.upload, "densify": self.densify}
        own: dict[str, Any] = dict(self.upload_options)
        return {"upload": TopK(**own, pack_size=self.pack_size, densify=self.densify)}

    @property
    def clients_per_round(self) -> int:
        """How many clients are trained in a round."""
        return max(1, int(self.clients * self.fraction_train))

    def _strata(self) -> list[frozenset[int]]:
        """The groups of clients that are sampled in proportion."""
        byzantine = self.byzantine_ids()
        honest = frozenset(range(self.clients)) - byzantine
        return [byzantine, honest] if self.balanced_sampling and byzantine else []

    def server_lr_in(self, server_round: int) -> float:
        """The server's step size in a round: decayed after each of `lr_decay_rounds`."""
        return self.server_lr * float(self.lr_decay) ** sum(server_round > r for r in self.lr_decay_rounds)

    def collusive_attack(self) -> CollusiveAttack | None:
        """The attack, if the adversary has to run it."""
        attack = self.make_attack()
        return attack if isinstance(attack, CollusiveAttack) else None

    def client_settings(self) -> ClientSettings:
        """The part that clients get to see."""
        return ClientSettings(**{name: getattr(self, name) for name in ClientSettings.model_fields})


def parse_calls(text: str) -> list[tuple[str, dict[str, OptionValue]]]:
    """Parse "bucketing(s=2), nnm" into names and options.

    Raises:
        ValueError: not of this form.
    """
    calls = []
    for part in filter(None, (part.strip() for part in re.split(r",(?![^(]*\))", text))):
        match = re.fullmatch(r"([\w-]+)\s*(?:\((.*)\))?", part)
        if match is None:
            raise ValueError(f"{part!r} is not of the form name or name(option=value, ...)")
        calls.append((match[1].lower(), parse_options(match[2] or "")))
    return calls


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


def _readable(error: Any) -> str:
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


def unmet_needs(name: str, attack: type[Attack], offers: Collection[Need]) -> list[str]:
    """What an attack cannot be carried out without, and what the run does not offer."""
    return [f"attack {name} needs {need}" for need in sorted(attack.needs.difference(offers))]


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
