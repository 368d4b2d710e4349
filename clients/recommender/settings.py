"""What the users of a recommender must know to train: the part of a run's configuration they see."""

from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from byzflower.attacks.items import ITEM_ATTACKS
from byzflower.clients.settings import RunSettings
from byzflower.datasets.interactions import Split
from byzflower.datasets.recsys import load_feedback

if TYPE_CHECKING:  # the command line reads settings without torch
    from byzflower.attacks import Attack
    from byzflower.models.build import PersonalRecommender

RECOMMENDATION = "recommendation"


class RecommenderSettings(RunSettings):
    """Data, model, local step and attack of every user.

    Users 0..n-1 are the data set's; the attackers are made-up users n..n+f-1.
    """

    task: Literal["recommendation"] = Field("recommendation", description="what is learned")
    dataset: str = Field("synthetic", description="data set (see --list)")
    model: str = Field("mf", description="model (see --list)")
    attack: str = Field("spattack-o-d", description="attack of the Byzantine clients (see --list), or none")
    rho: float = Field(
        0.03, ge=0, lt=1, description="share of Byzantine users rho: floor(n rho / (1 - rho)) are added"
    )
    byzantine: int | None = Field(
        None, ge=0, description="how many Byzantine users are added, instead of --rho"
    )
    lr: float = Field(0.01, gt=0, description="local learning rate")
    reg: float = Field(0.1, ge=0, description="weight of the squared embeddings in a user's loss")
    clip_upload: float = Field(0.0, ge=0, description="differential privacy: longest upload; 0 for any")
    laplace: float = Field(0.0, ge=0, description="differential privacy: scale of the uploads' Laplace noise")
    candidates: int = Field(100, ge=1, description="items that the held-out one is ranked against")

    @field_validator("byzantine", mode="before")
    @classmethod
    def _none_for_nothing(cls, value: object) -> object:
        return None if value in ("", "none") else value

    @cached_property
    def feedback(self) -> Split:
        """The data set, of which every user's last item is held out; kept by the process."""
        return leave_one_out(self.dataset, self.data)

    @property
    def clients_remember(self) -> bool:
        """Users keep their embeddings."""
        return True

    def num_byzantine(self) -> int:
        """How many made-up users there are; none without an attack."""
        if self.attack == "none":
            return 0
        if self.byzantine is not None:
            return self.byzantine
        return int(self.feedback.train.num_users * self.rho / (1 - self.rho) + 1e-9)

    @property
    def clients(self) -> int:
        """Users of the data set, and made-up ones."""
        return self.feedback.train.num_users + self.num_byzantine()

    def byzantine_ids(self) -> frozenset[int]:
        """Ids of the made-up users."""
        return frozenset(range(self.feedback.train.num_users, self.clients))

    def make_attack(self) -> "Attack | None":
        """The attack with its parameters, or None."""
        return None if self.attack == "none" else ITEM_ATTACKS[self.attack](**self.attack_options)  # type: ignore[arg-type]

    def attacked(self, server_round: int) -> bool:
        """Whether the made-up users do anything in a round."""
        attack = self.make_attack()
        return attack is not None and attack.active(server_round)

    def make_model(self) -> "PersonalRecommender":
        """The model with its parameters."""
        from byzflower.models.build import describe_personal  # late: it needs torch

        return describe_personal(self.model, self.model_options)


@lru_cache(maxsize=2)
def leave_one_out(dataset: str, data: str) -> Split:
    """Items of each user but one, and that one (see `Interactions.leave_one_out`)."""
    return load_feedback(dataset, data).leave_one_out()
