"""What a configuration trains: classifiers and stateless recommenders, or personal recommenders."""

from typing import Any

from flwr.server import Grid
from numpy.typing import NDArray
from typing_extensions import override

from byzflower.server.adversary.base import Adversary
from byzflower.server.adversary.diagnostics import principal_plane
from byzflower.server.adversary.items import ItemAdversary
from byzflower.server.beginning import beginning
from byzflower.server.config.classification import RunConfig
from byzflower.server.config.recommendation import RecommendationConfig
from byzflower.server.config.tasks import Config
from byzflower.server.recorder import Recorder
from byzflower.server.results import Record
from byzflower.server.rounds import Federation
from byzflower.strategies.items import ItemStrategy


class ServerScoredFederation(Federation):
    """A run of a `RunConfig`: the server scores the model on data of its own."""

    config: RunConfig

    def __init__(self, config: RunConfig, nodes: int, recorder: Recorder | None = None) -> None:
        """Prepare a run that waits for at least `nodes` nodes."""
        self._beginning = beginning(config)
        super().__init__(config, nodes, recorder)

    @override
    def _make_adversary(self) -> Adversary | None:
        config, attack = self.config, self.config.collusive_attack()
        masks = config.make_mask_attack()
        observed = config.diagnostics or config.embed_rounds
        watch = observed and not self.robust.upload.measures_itself
        if attack is None and masks is None and not watch:
            return None
        return Adversary(
            self.robust,
            attack,
            mask_attack=masks,
            byzantine=config.byzantine_ids(),
            seed=config.seed,
            diagnostics=config.diagnostics,
            embed_rounds=config.embed_rounds,
            assumed=config.byzantine / config.clients,
        )

    @override
    def _make_model(self) -> dict[str, NDArray[Any]]:
        return self._beginning.arrays

    @override
    def _scores(self, server_round: int, grid: Grid) -> Record:
        scores: Record = {}
        if self.config.evaluate_clients and server_round > 0:
            scores["clients_evaluate"] = self._let_clients_evaluate(server_round, grid)
        if self._is_scored(server_round):
            scores.update(self._beginning.evaluate(self.arrays))
        return scores

    @override
    def _observed(self, server_round: int) -> Record:
        kind, last, byzantine = self.robust.upload, self.robust.last_round, self.config.byzantine_ids()
        if not kind.measures_itself:
            return {}
        observed: Record = {}
        if self.config.diagnostics:
            kept = last.clients if last.selected is None else last.selected
            benign = set(range(self.config.clients)) - byzantine
            observed["diagnostics"] = kind.observe(kept, benign) if last.skipped is None else {}
        if server_round in self.config.embed_rounds and last.clients:
            planes = {what: principal_plane(rows) for what, rows in kind.views().items()}
            attackers = [i for i, client in enumerate(last.clients) if client in byzantine]
            observed["planes"] = {**planes, "byzantine": attackers}
        return observed


class RecommenderFederation(Federation):
    """A run of a `RecommendationConfig`: users rank items themselves, the server gets averages."""

    config: RecommendationConfig

    @override
    def _make_adversary(self) -> Adversary | None:
        config, attack = self.config, self.config.collusive_attack()
        if attack is None or not isinstance(self.robust, ItemStrategy):
            return None
        return ItemAdversary(
            self.robust, attack, config.byzantine_ids(), config.feedback.train.popularity, config.seed
        )

    @override
    def _make_model(self) -> dict[str, NDArray[Any]]:
        config = self.config
        return config.make_model().arrays(config.feedback.train.num_items, config.seed)

    @override
    def _scores(self, server_round: int, grid: Grid) -> Record:
        return self._let_clients_evaluate(server_round, grid) if self._is_scored(server_round) else {}


def federation(config: Config, nodes: int, recorder: Recorder | None = None) -> Federation:
    """The federation of a configuration."""
    if isinstance(config, RecommendationConfig):
        return RecommenderFederation(config, nodes, recorder)
    return ServerScoredFederation(config, nodes, recorder)
