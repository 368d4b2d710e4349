"""What a client must know to train: the part of a run's configuration that travels to it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator

from byzflower.attacks import ATTACKS, MASK_ATTACKS
from byzflower.datasets import FEEDBACK
from byzflower.numerics.randomness import numpy_generator
from byzflower.plugins import import_modules, module_names

if TYPE_CHECKING:  # the command line reads settings without torch
    from byzflower.attacks import Attack, MaskAttack, Need

OptionValue = bool | int | float | str | None
SETTINGS = "settings"


def parse_options(value: object) -> dict[str, OptionValue]:
    """Parse "eps=3, sign=-1" into named values; mappings pass through.

    Raises:
        ValueError: not of this form.
    """
    if isinstance(value, Mapping):
        return {k: _parse_value(v) if isinstance(v, str) else v for k, v in value.items()}
    if not isinstance(value, str):
        raise ValueError("options must be name=value pairs")
    options: dict[str, OptionValue] = {}
    for pair in filter(None, (part.strip() for part in value.split(","))):
        name, equals, text = (piece.strip() for piece in pair.partition("="))
        if not equals or not name.isidentifier():
            raise ValueError(f"{pair!r} is not of the form name=value")
        options[name] = _parse_value(text)
    return options


def options_of(run_config: Mapping[str, Any]) -> dict[str, Any]:
    """The options in a Flower run config, whose keys are in kebab-case.

    An app must list all options; those that are empty there have the default of the task.
    """
    return {key.replace("-", "_"): value for key, value in run_config.items() if value != ""}


def _parse_value(text: str) -> OptionValue:
    words: dict[str, OptionValue] = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


class RunSettings(BaseModel):
    """What clients must know whatever is learned: data, model, attack and the seed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    imports: tuple[str, ...] = Field(
        (), description="modules to import first, everywhere, for the rules, attacks, ... that they register"
    )
    dataset: str = Field("digits", description="data set (see --list)")
    data: str = Field("", description="folder with the data set's raw files; default BYZFLOWER_DATA")
    model: str = Field("cnn", description="model (see --list)")
    model_options: dict[str, OptionValue] = Field({}, description="the model's parameters, as name=value")
    attack: str = Field("ipm", description="attack of the Byzantine clients (see --list), or none")
    attack_options: dict[str, OptionValue] = Field(
        {}, description="the attack's parameters, as name=value,name=value"
    )
    seed: int = Field(1, ge=0, description="the run's one seed")

    @field_validator("imports", mode="before")
    @classmethod
    def _parse_imports(cls, value: object) -> tuple[str, ...]:
        return module_names(value)

    @field_validator("imports")
    @classmethod
    def _import(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        import_modules(value)  # before the other options, which may name what they register
        return value

    @field_validator("attack_options", "model_options", mode="before")
    @classmethod
    def _parse_options(cls, value: object) -> dict[str, OptionValue]:
        return parse_options(value)

    @property
    def offers(self) -> "frozenset[Need]":
        """What clients have of that which some attacks need."""
        return frozenset()

    @classmethod
    def from_run_config(cls, run_config: Mapping[str, Any]) -> Self:
        """Take the known keys of a Flower run config; see `options_of`."""
        return cls(**{k: v for k, v in options_of(run_config).items() if k in cls.model_fields})


class ClientSettings(RunSettings):
    """Data, model, local training and attack of every client of a run."""

    clients: int = Field(20, ge=1, description="number of logical clients n")
    byzantine: int = Field(8, ge=0, description="how many of them are Byzantine")
    byzantine_set: Literal["first", "random"] = Field(
        "first", description="which are Byzantine: the first ids, or a seeded random set"
    )
    mask_attack: str = Field(
        "none",
        description="topk: how Byzantine clients choose packs (see --list), or none: as benign ones do",
    )
    mask_attack_options: dict[str, OptionValue] = Field({}, description="the mask attack's parameters")
    partition: Literal["iid", "dirichlet", "shards", "natural"] = Field(
        "iid", description="split of the data"
    )
    alpha: float = Field(0.5, gt=0, description="Dirichlet concentration; lower is less balanced")
    shards_per_client: int = Field(2, ge=1, description="label shards per client")
    min_size: int = Field(1, ge=1, description="fewest training samples of any client")
    max_samples: int = Field(0, ge=0, description="use only that many training samples; 0 for all")
    optimizer: Literal["sgd", "adam"] = Field("sgd", description="local optimizer")
    lr: float = Field(0.1, gt=0, description="local learning rate")
    momentum: float = Field(0.0, ge=0, lt=1, description="momentum of the local SGD steps")
    weight_decay: float = Field(0.0, ge=0, description="local weight decay")
    clip_norm: float = Field(0.0, ge=0, description="clip local gradients to this norm; 0 for never")
    epochs: int = Field(2, ge=1, description="local epochs a round")
    batches: int = Field(0, ge=0, description="local mini-batches a round instead of epochs; 0 for epochs")
    batch_size: int = Field(16, ge=1, description="local batch size")
    upload: str = Field("weights", description="what clients send: weights, gradient, topk (see --list)")
    upload_options: dict[str, OptionValue] = Field(
        {}, description="of topk: ratio, importance (update or parameter), residual, half"
    )
    negatives: int = Field(
        1, ge=1, description="recommenders: unrated items that each rated one is compared with"
    )
    local_momentum: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="beta of the clients' own momentum m = (1-beta) g + beta m, which they upload",
    )

    @field_validator("mask_attack_options", "upload_options", mode="before")
    @classmethod
    def _parse_more_options(cls, value: object) -> dict[str, OptionValue]:
        return parse_options(value)

    @property
    def clients_remember(self) -> bool:
        """Whether clients keep something from round to round, which must be saved with the model."""
        from byzflower.attacks import TrainingAttack  # late: the command line reads settings without torch

        kept = self.local_momentum > 0 or bool(self.upload_options.get("residual"))
        return kept or isinstance(self.make_attack(), TrainingAttack)

    @property
    def recommends(self) -> bool:
        """Whether clients are users of a recommender, by the data set."""
        return self.dataset in FEEDBACK

    @property
    def offers(self) -> "frozenset[Need]":
        """Labels, unless clients are users of a recommender."""
        from byzflower.attacks import Need  # late: the command line reads settings without torch

        return frozenset() if self.recommends else frozenset({Need.LABELS})

    def byzantine_ids(self) -> frozenset[int]:
        """Logical ids of the Byzantine clients; none without an attack."""
        if self.attack == self.mask_attack == "none":
            return frozenset()
        if self.byzantine_set == "first":
            return frozenset(range(self.byzantine))
        drawn = numpy_generator(self.seed, "byzantine-set").choice(
            self.clients, self.byzantine, replace=False
        )
        return frozenset(drawn.tolist())

    def make_attack(self) -> "Attack | None":
        """The attack with its parameters, or None."""
        return None if self.attack == "none" else ATTACKS[self.attack](**self.attack_options)  # type: ignore[arg-type]

    def make_mask_attack(self) -> "MaskAttack | None":
        """The attack on masks with its parameters, or None."""
        if self.mask_attack == "none":
            return None
        return MASK_ATTACKS[self.mask_attack](**self.mask_attack_options)  # type: ignore[arg-type]

    def attacked(self, server_round: int) -> bool:
        """Whether the Byzantine clients do anything in a round that benign ones would not."""
        attacks = (self.make_attack(), self.make_mask_attack())
        return any(attack is not None and attack.active(server_round) for attack in attacks)
