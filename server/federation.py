"""The rounds of one federated training, on any Grid."""

import json
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.common import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.server import Grid
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from byzflower.clients.settings import SETTINGS
from byzflower.flower.compat import array_record, array_view, poll_often, records_of
from byzflower.flower.guarded import guarded
from byzflower.server.adversary.base import Adversary
from byzflower.server.adversary.diagnostics import principal_plane, vulnerability
from byzflower.server.adversary.items import ItemAdversary
from byzflower.server.beginning import beginning
from byzflower.server.config.classification import RunConfig
from byzflower.server.config.recommendation import RecommendationConfig
from byzflower.server.config.tasks import Config
from byzflower.server.recorder import Checkpoint, Record, Recorder, RunFolderError, detection, naming
from byzflower.strategies.base import RobustStrategy
from byzflower.strategies.items import ItemStrategy
from byzflower.strategies.sampling import wait_for_nodes
from byzflower.uploads.base import among
from byzflower.uploads.roster import assign_clients

OnRound = Callable[[Record], None]
# Seconds after a checkpoint that could not be written, until the next try.
_RETRY = 30.0
_LOG = logging.getLogger(__name__)


@dataclass
class Outcome:
    """How a run ended.

    Attributes:
        result: the content of result.json; what there is so far if the run was interrupted.
        recorder: where it was written.
        interrupted: whether it was stopped before its last round.
    """

    result: Record
    recorder: Recorder
    interrupted: bool = False


class _CheckpointBudget:
    """Lets checkpoints take at most a twentieth of a run's time.

    Rounds that take long are saved every time; fast ones with a large state are not slowed down. A full disk
    does not end a run: what could not be saved is logged, and tried again later.
    """

    def __init__(self, saved_round: int) -> None:
        self.saved_round = saved_round
        self._next = 0.0

    def allows(self) -> bool:
        return time.monotonic() >= self._next

    @contextmanager
    def saving(self, server_round: int) -> Iterator[None]:
        started, pause = time.monotonic(), 0.0
        try:
            yield
            self.saved_round = server_round
        except RunFolderError as error:
            pause = _RETRY
            _LOG.warning(
                "round %d is not saved (%s); if the run ends now, it goes on after round %d",
                *(server_round, error, self.saved_round),
            )
        ended = time.monotonic()
        self._next = ended + max(20 * (ended - started), pause)


class Federation(ABC):
    """One configured run: strategy, adversary, model and records."""

    def __init__(self, config: Config, nodes: int, recorder: Recorder | None = None) -> None:
        """Prepare a run that waits for at least `nodes` nodes."""
        self.config = config
        self.nodes = nodes
        self.recorder = recorder or Recorder(config)
        self.robust: RobustStrategy = config.make_strategy(1 if config.deployed else nodes)
        self.strategy: Strategy = self._make_adversary() or self.robust
        model = self._make_model()
        self.names = list(model)
        self.arrays: list[NDArray[Any]] = list(model.values())

    # -- what kinds of federations differ in -----------------------------------------------------------

    @abstractmethod
    def _make_adversary(self) -> Adversary | None:
        """The adversary around `robust`, if there is anything for it to do."""

    @abstractmethod
    def _make_model(self) -> dict[str, NDArray[Any]]:
        """The initial global model."""

    @abstractmethod
    def _scores(self, server_round: int, grid: Grid) -> Record:
        """What the global model scores after a round (0: before the first)."""

    def _observed(self, server_round: int) -> Record:
        """What is asked for about a round that an adversary cannot see."""
        return {}

    # -- rounds ----------------------------------------------------------------------------------------

    def run(
        self, grid: Grid, on_round: OnRound | None = None, stop: threading.Event | None = None
    ) -> Outcome:
        """Train until the last round, or until `stop` is set; every round is recorded as it ends.

        An interrupted run goes on from its last checkpoint, with the same result; one that was stopped
        loses nothing.
        """
        on_round = on_round or (lambda record: None)
        poll_often(grid, self.nodes)
        grid = guarded(grid)
        if self.config.deployed:  # later, the rounds go on with those that are there
            wait_for_nodes(grid, self.nodes)
        checkpoint = self.recorder.resume()
        done = 0
        if checkpoint is not None:
            self._restore(grid, checkpoint)
            done = checkpoint.round
            for record in self.recorder.history:
                on_round(record)
        else:
            self._record(on_round, {"round": 0, **self._scores(0, grid)})
        budget = _CheckpointBudget(done)
        for server_round in range(done + 1, self.config.rounds + 1):
            if stop is not None and stop.is_set():
                if budget.saved_round < server_round - 1:
                    with budget.saving(server_round - 1):
                        self._checkpoint(server_round - 1, grid)
                return Outcome({}, self.recorder, interrupted=True)
            self._record(on_round, self._round(server_round, grid))
            if budget.allows() and server_round < self.config.rounds:
                with budget.saving(server_round):
                    self._checkpoint(server_round, grid)
        if isinstance(self.strategy, Adversary) and self.strategy.similarity is not None:
            with naming(self.recorder.folder):
                self.strategy.similarity.save(self.recorder.folder)
        return Outcome(self.recorder.finish(self.names, self.arrays), self.recorder)

    def _is_scored(self, server_round: int) -> bool:
        return server_round % self.config.eval_every == 0 or server_round == self.config.rounds

    def _let_clients_evaluate(self, server_round: int, grid: Grid) -> Record:
        arrays = array_record(dict(zip(self.names, self.arrays, strict=True)))
        messages = self.strategy.configure_evaluate(server_round, arrays, self._client_config(), grid)
        replies = grid.send_and_receive(messages, timeout=self.config.round_timeout)
        return dict(self.strategy.aggregate_evaluate(server_round, replies) or {})

    def _client_config(self) -> ConfigRecord:
        return ConfigRecord({SETTINGS: json.dumps(self.config.client_settings().model_dump())})

    def _round(self, server_round: int, grid: Grid) -> Record:
        started = time.perf_counter()
        arrays = array_record(dict(zip(self.names, self.arrays, strict=True)))
        self.robust.server_lr = self.config.server_lr_in(server_round)
        messages = self.strategy.configure_train(server_round, arrays, self._client_config(), grid)
        waited = time.perf_counter()
        replies = grid.send_and_receive(messages, timeout=self.config.round_timeout)
        answered = time.perf_counter()
        new_arrays, metrics = self.strategy.aggregate_train(server_round, replies)
        del replies
        aggregated = time.perf_counter()
        if new_arrays is not None:
            self.arrays = [array_view(array) for array in new_arrays.values()]
        record = self._describe(server_round)
        train = dict(metrics or {})
        record.update(self._scores(server_round, grid))
        ended = time.perf_counter()
        adversary = self.strategy if isinstance(self.strategy, Adversary) else None
        if adversary is not None and adversary.diagnostics:
            record["diagnostics"] = adversary.info
        record.update(self._observed(server_round))
        if adversary is not None and adversary.embedding:
            record["embedding"] = adversary.embedding
        clients = self.robust.last_round.clients
        record["seconds"] = {
            "round": ended - started,
            "wait": answered - waited,
            "train": _number(train.pop("train-seconds", 0.0)) * len(clients),
            "attack": 0.0,
            **(adversary.seconds if adversary is not None else {}),
            **self.robust.last_round.seconds,
            "server": aggregated - answered,
            "evaluate": ended - aggregated,
        }
        record["train"] = train
        return record

    def _describe(self, server_round: int) -> Record:
        """What happened to whom, from the strategy's own record."""
        last = self.robust.last_round
        byzantine = set(self.config.byzantine_ids())
        attacked = self.config.attacked(server_round)
        kept = last.clients if last.selected is None else last.selected
        # Of nodes that are known by their own ids alone, nobody can say whether they attack.
        logical = range(self.config.clients)
        quarantined = {client for client, _ in last.rejections if client in logical}
        arrived = {client for client in last.clients if client in logical}
        present = (arrived | quarantined) & byzantine if attacked else set()
        excluded = quarantined | arrived.difference(kept)
        selects = last.selected is not None or bool(quarantined)
        precision, recall = detection(excluded, present) if selects and attacked else (None, None)
        return {
            "round": server_round,
            "clients": len(last.clients),
            "kept": len(kept) if last.selected is not None else None,
            "selected": last.selected,
            "quarantined": [{"client": client, "reason": reason} for client, reason in last.rejections],
            "skipped": last.skipped,
            "dropped": [{"client": client, "reason": reason} for client, reason in last.dropped],
            "precision": precision,
            "recall": recall,
            "info": last.info,
            "bytes_down": last.bytes_down,
            "bytes_up": last.bytes_up,
            "wire_bytes": last.wire_bytes,
            **self._contributors(byzantine, attacked),
            **({"ignored": [who._asdict() for who in last.ignored]} if last.ignored else {}),
        }

    def _contributors(self, byzantine: set[int], attacked: bool) -> dict[str, dict[str, float]]:
        """How much of what packs the attackers are, if uploads are sparse."""
        last = self.robust.last_round
        if last.masks is None or not attacked:
            return {}
        who = among(last.clients, byzantine)
        kept = among(last.clients, last.clients if last.selected is None else last.selected)
        return {"contributors": vulnerability(last.masks, who, kept)}

    def _record(self, on_round: OnRound, record: Record) -> None:
        self.recorder.round(record)
        on_round(record)

    # -- checkpoints ---------------------------------------------------------------------------------

    def _checkpoint(self, server_round: int, grid: Grid) -> None:
        server = {f"strategy.{k}": v for k, v in self.robust.state_dict().items()}
        if isinstance(self.strategy, Adversary):
            server.update({f"adversary.{k}": v for k, v in self.strategy.state_dict().items()})
        # Real nodes keep their clients' state to themselves.
        keeps = self.config.clients_remember and not self.config.deployed
        clients = self._fetch_client_state(grid) if keeps else {}
        self.recorder.checkpoint(Checkpoint(server_round, self.arrays, server, clients))

    def _restore(self, grid: Grid, checkpoint: Checkpoint) -> None:
        self.arrays = checkpoint.arrays

        def part(prefix: str) -> dict[str, NDArray[Any]]:
            return {k.removeprefix(prefix): v for k, v in checkpoint.server.items() if k.startswith(prefix)}

        self.robust.load_state_dict(part("strategy."))
        if isinstance(self.strategy, Adversary):
            self.strategy.load_state_dict(self.names, self.arrays, part("adversary."))
        if checkpoint.clients:
            self._send_client_state(grid, checkpoint.clients)

    def _fetch_client_state(self, grid: Grid) -> dict[str, dict[str, NDArray[Any]]]:
        nodes = wait_for_nodes(grid, self.nodes)
        state: dict[str, dict[str, NDArray[Any]]] = {}
        for reply in self._query(grid, [(node, RecordDict()) for node in nodes]):
            for name, record in records_of(reply.content, ArrayRecord).items():
                own = {key: np.array(array_view(array)) for key, array in record.items()}
                state.setdefault(name, {}).update(own)
        return state

    def _send_client_state(self, grid: Grid, state: dict[str, dict[str, NDArray[Any]]]) -> None:
        cohorts = assign_clients(self.config.clients, wait_for_nodes(grid, self.nodes))
        contents = []
        for node, clients in cohorts.items():
            own = {
                name: array_record({str(c): arrays[str(c)] for c in clients if str(c) in arrays})
                for name, arrays in state.items()
            }
            contents.append((node, RecordDict({**own})))
        self._query(grid, contents)

    def _query(self, grid: Grid, contents: Sequence[tuple[int, RecordDict]]) -> list[Message]:
        messages = [Message(content, node, MessageType.QUERY) for node, content in contents]
        replies = list(grid.send_and_receive(messages, timeout=self.config.round_timeout))
        if len(replies) < len(messages) or any(reply.has_error() for reply in replies):
            raise RuntimeError("a node did not exchange its clients' state")
        return replies


class ServerScoredFederation(Federation):
    """A run of a `RunConfig`: the server scores the model by itself."""

    config: RunConfig

    def __init__(self, config: RunConfig, nodes: int, recorder: Recorder | None = None) -> None:
        """Prepare a run that waits for at least `nodes` nodes."""
        self._beginning = beginning(config)
        super().__init__(config, nodes, recorder)

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

    def _make_model(self) -> dict[str, NDArray[Any]]:
        return self._beginning.arrays

    def _scores(self, server_round: int, grid: Grid) -> Record:
        scores: Record = {}
        if self.config.evaluate_clients and server_round > 0:
            scores["clients_evaluate"] = self._let_clients_evaluate(server_round, grid)
        if self._is_scored(server_round):
            scores.update(self._beginning.evaluate(self.arrays))
        return scores

    def _observed(self, server_round: int) -> Record:
        observed: Record = {}
        kind, last, byzantine = self.robust.upload, self.robust.last_round, self.config.byzantine_ids()
        if not kind.measures_itself:
            return observed
        if self.config.diagnostics:
            kept = last.clients if last.selected is None else last.selected
            benign = set(range(self.config.clients)) - byzantine
            observed["diagnostics"] = kind.observe(kept, benign) if last.skipped is None else {}
        if server_round in self.config.embed_rounds and last.clients:
            planes = {what: principal_plane(rows) for what, rows in kind.views().items()}
            who = [i for i, client in enumerate(last.clients) if client in byzantine]
            observed["planes"] = {**planes, "byzantine": who}
        return observed


class RecommenderFederation(Federation):
    """A run of a `RecommendationConfig`: users score the items by themselves, the server gets averages."""

    config: RecommendationConfig

    def _make_adversary(self) -> Adversary | None:
        config, attack = self.config, self.config.collusive_attack()
        if attack is None or not isinstance(self.robust, ItemStrategy):
            return None
        return ItemAdversary(
            self.robust, attack, config.byzantine_ids(), config.feedback.train.popularity, config.seed
        )

    def _make_model(self) -> dict[str, NDArray[Any]]:
        config = self.config
        return config.make_model().arrays(config.feedback.train.num_items, config.seed)

    def _scores(self, server_round: int, grid: Grid) -> Record:
        return self._let_clients_evaluate(server_round, grid) if self._is_scored(server_round) else {}


def federation(config: Config, nodes: int, recorder: Recorder | None = None) -> Federation:
    """The federation of a configuration."""
    if isinstance(config, RecommendationConfig):
        return RecommenderFederation(config, nodes, recorder)
    return ServerScoredFederation(config, nodes, recorder)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
