"""The configuration of a federated recommender: what `RunConfig` is for classifiers."""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from byzflower.attacks.items import ITEM_ATTACKS
from byzflower.clients.recommender.settings import RECOMMENDATION, RecommenderSettings
from byzflower.datasets import FEEDBACK
from byzflower.models import PERSONAL
from byzflower.server.config.base import CommonConfig
from byzflower.server.config.checks import unknown_name, unknown_options, unmet_needs
from byzflower.strategies.items import ITEM_STRATEGIES

if TYPE_CHECKING:  # the command line reads configurations without torch
    from byzflower.attacks.items import ItemAttack
    from byzflower.strategies.items import ItemStrategy


class RecommendationConfig(RecommenderSettings, CommonConfig):
    """Everything that determines a run of a recommender. Field names, in kebab-case, are the options."""

    TASK: ClassVar[str] = RECOMMENDATION

    @property
    def metrics(self) -> tuple[str, ...]:
        """Hit rates and gains of the held-out items, and the loss."""
        return ("HR@10", "HR@5", "nDCG@5", "nDCG@10", "loss")

    strategy: str = Field("median", description="aggregation rule of each item (see --list)")
    rounds: int = Field(200, ge=1, description="rounds of training, in each of which every user takes part")
    eval_every: int = Field(10, ge=1, description="let the users rank every so many rounds")
    server_lr: float = Field(0.01, gt=0, description="server step size")
    server_optimizer: Literal["sgd", "adam"] = Field("sgd", description="how the server steps")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        mistakes = [
            *unknown_name("dataset", self.dataset, FEEDBACK),
            *unknown_name("model", self.model, PERSONAL),
            *unknown_name("attack", self.attack, [*ITEM_ATTACKS, "none"]),
            *unknown_name("strategy", self.strategy, ITEM_STRATEGIES),
        ]
        mistakes = mistakes or self._wrong_parameters() or self._refused()
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return self

    def _wrong_parameters(self) -> list[str]:
        attack = ITEM_ATTACKS.get(self.attack)
        return [
            *([] if attack is None else unmet_needs(self.attack, attack, self.offers)),
            *unknown_options("attack-options", attack, self.attack_options),
            *unknown_options("model-options", PERSONAL[self.model], self.model_options),
            *unknown_options("strategy-options", ITEM_STRATEGIES[self.strategy], self.strategy_options),
        ]

    def _refused(self) -> list[str]:
        """What the attack, the model and the rule themselves say about their parameters."""
        mistakes = []
        parts: dict[str, Callable[[], object]] = {
            "attack-options": self.make_attack,
            "model-options": self.make_model,
            "strategy-options": lambda: self._make_rule(num_byzantine=0),
        }
        for what, make in parts.items():
            try:
                make()
            except (TypeError, ValueError) as error:
                mistakes.append(f"{what}: {error}")
        return mistakes

    def make_strategy(self, nodes: int = 1) -> "ItemStrategy":
        """Make the strategy, for a run on `nodes` nodes."""
        return self._make_rule(
            num_byzantine=self.num_byzantine(),
            num_clients=None if self.deployed else self.clients,
            identity=self.identity if self.deployed else "claimed",
            min_train_nodes=1,
            min_evaluate_nodes=1,
            min_available_nodes=nodes,
        )

    def _make_rule(self, num_byzantine: int, **options: Any) -> "ItemStrategy":
        rule = ITEM_STRATEGIES[self.strategy]
        own: dict[str, Any] = dict(self.strategy_options)
        if "num_byzantine" in inspect.signature(rule.__init__).parameters:
            own.setdefault("num_byzantine", num_byzantine)
        return rule(
            **own,
            **options,
            server_lr=self.server_lr,
            server_optimizer=self.server_optimizer,
            max_skipped_rounds=self.max_skipped_rounds,
            seed=self.seed,
            fraction_evaluate=1.0,
        )

    def server_lr_in(self, server_round: int) -> float:
        """The server's step size, the same in all rounds."""
        return self.server_lr

    def collusive_attack(self) -> "ItemAttack | None":
        """The attack, if the adversary has to run it."""
        from byzflower.attacks.items import ItemAttack  # late: it needs torch

        attack = self.make_attack()
        return attack if isinstance(attack, ItemAttack) else None

    def client_settings(self) -> RecommenderSettings:
        """The part that users get to see."""
        return RecommenderSettings(**{name: getattr(self, name) for name in RecommenderSettings.model_fields})
