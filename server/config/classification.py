"""A run's complete configuration, checked before anything starts."""

import inspect
import re
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from byzflower.attacks import ATTACKS, MASK_ATTACKS
from byzflower.clients.settings import ClientSettings, OptionValue, parse_options
from byzflower.datasets import DATASETS, FEEDBACK
from byzflower.models import MODELS, STATELESS
from byzflower.models.ranking import RANKS
from byzflower.server.config.base import CommonConfig
from byzflower.server.config.checks import unknown_name
from byzflower.strategies import PRE_AGGREGATIONS, STRATEGIES
from byzflower.uploads.registry import OF_STRATEGIES, UPLOADS

if TYPE_CHECKING:  # the command line reads configurations without torch
    from byzflower.attacks import CollusiveAttack
    from byzflower.strategies import PreAggregation, RobustStrategy
    from byzflower.strategies.fltrust import RootUpload
    from byzflower.uploads.kind import UploadKind


class RunConfig(ClientSettings, CommonConfig):
    """Everything that determines a run. Field names, in kebab-case, are the options everywhere."""

    TASK: ClassVar[str] = "classification"

    @property
    def metrics(self) -> tuple[str, ...]:
        """Accuracies and loss; of recommenders, precision and recall at each rank."""
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
        False, description="train the same share of Byzantine and of benign clients in every round"
    )
    evaluate_clients: bool = Field(False, description="let the clients evaluate too")
    max_client_weight: float | None = Field(
        None, gt=0, le=1, description="cap on a client's share of the weights"
    )
    max_round_bytes: int = Field(
        0, ge=0, description="refuse a round that needs more server memory; 0 for no limit"
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
        names = [name for name, _ in parse_calls(value)]
        faults = [
            fault for name in names for fault in unknown_name("pre-aggregation", name, PRE_AGGREGATIONS)
        ]
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
        if mistakes := self._wrong_names_and_numbers():
            raise ValueError("\n".join(mistakes))
        # Late, after all that can be told without it: the rest needs torch.
        from byzflower.server.config.trial import faults

        if mistakes := faults(self):
            raise ValueError("\n".join(mistakes))
        return self

    def _wrong_names_and_numbers(self) -> list[str]:
        """What can be said before anything is imported that the names stand for."""
        mistakes = [
            *unknown_name("dataset", self.dataset, [*DATASETS, *FEEDBACK]),
            *unknown_name("model", self.model, [*MODELS, *STATELESS]),
            *unknown_name("attack", self.attack, [*ATTACKS, "none"]),
            *unknown_name("mask-attack", self.mask_attack, [*MASK_ATTACKS, "none"]),
            *unknown_name("strategy", self.strategy, STRATEGIES),
            *unknown_name("upload", self.upload, [name for name in UPLOADS if name not in OF_STRATEGIES]),
        ]
        if self.recommends != (self.model in STATELESS) and self.model in [*MODELS, *STATELESS]:
            kind = "recommenders'" if self.recommends else "classifiers'"
            models = ", ".join(sorted(STATELESS if self.recommends else MODELS))
            mistakes.append(f"{kind} data set {self.dataset} needs one of the models {models}")
        if self.mask_attack != "none" and self.upload != "topk":
            mistakes.append(f"mask-attack needs upload=topk, got upload={self.upload}")
        if self.byzantine >= self.clients:
            mistakes.append(f"byzantine must be below clients={self.clients}, got {self.byzantine}")
        for name in ("lr_decay_rounds", "embed_rounds"):
            rounds = getattr(self, name)
            if any(round < 1 for round in rounds) or list(rounds) != sorted(set(rounds)):
                mistakes.append(f"{name.replace('_', '-')} must be ascending and at least 1, got {rounds}")
        return mistakes

    # -- parts -------------------------------------------------------------------------------------

    def make_pre(self) -> "list[PreAggregation]":
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

    def make_strategy(self, nodes: int = 1, root_upload: "RootUpload | None" = None) -> "RobustStrategy":
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
            from byzflower.server.root import make_root_upload  # late: it needs torch and Flower

            options["root_upload"] = root_upload or make_root_upload(
                self.client_settings(), self.root_samples, self.upload
            )
        upload: dict[str, Any] = {"upload": self.upload, "densify": self.densify}
        if self.upload not in ("weights", "gradient"):  # these strategies know by name
            upload = {"upload": self.make_upload()}
        return rule(
            **options,
            pre=self.make_pre(),
            server_lr=self.server_lr,
            **upload,
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

    def make_upload(self) -> "UploadKind":
        """How clients upload.

        Raises:
            ValueError: a parameter is missing or out of its range.
        """
        make: Any = UPLOADS[self.upload]
        packs = {"pack_size": self.pack_size, "densify": self.densify} if self.upload == "topk" else {}
        made: UploadKind = make(**self.upload_options, **packs)
        return made

    @property
    def clients_per_round(self) -> int:
        """How many clients are trained in a round."""
        return max(1, int(self.clients * self.fraction_train))

    def _strata(self) -> list[frozenset[int]]:
        """The groups of clients that are sampled in proportion."""
        byzantine = self.byzantine_ids()
        benign = frozenset(range(self.clients)) - byzantine
        return [byzantine, benign] if self.balanced_sampling and byzantine else []

    def server_lr_in(self, server_round: int) -> float:
        """The server's step size in a round: decayed after each of `lr_decay_rounds`."""
        return self.server_lr * float(self.lr_decay) ** sum(server_round > r for r in self.lr_decay_rounds)

    def collusive_attack(self) -> "CollusiveAttack | None":
        """The attack, if the adversary has to run it."""
        from byzflower.attacks import CollusiveAttack  # late: it needs torch

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
