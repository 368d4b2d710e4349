"""The rounds of one federated training, on any Grid."""

import json
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flwr.common import ConfigRecord
from flwr.server import Grid
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from byzflower.clients.settings import SETTINGS
from byzflower.flower.compat import array_record, array_view, poll_often
from byzflower.flower.guarded import guarded
from byzflower.server.adversary.base import Adversary
from byzflower.server.checkpoint_budget import CheckpointBudget
from byzflower.server.checkpoints import Checkpoint
from byzflower.server.client_state import fetch_client_state, send_client_state
from byzflower.server.config.tasks import Config
from byzflower.server.description import describe
from byzflower.server.files import naming
from byzflower.server.recorder import Recorder
from byzflower.server.results import Record
from byzflower.strategies.base import RobustStrategy
from byzflower.strategies.sampling import wait_for_nodes

OnRound = Callable[[Record], None]


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


class Federation(ABC):
    """One configured run: strategy, adversary, model and records.

    Attributes:
        config: of the run.
        nodes: how many nodes to wait for.
        recorder: of the run's folder.
        robust: the strategy.
        adversary: around `robust`; None if there is nothing for it to do.
        names: of the model's arrays.
        arrays: the global model.
    """

    def __init__(self, config: Config, nodes: int, recorder: Recorder | None = None) -> None:
        """Prepare a run that waits for at least `nodes` nodes."""
        self.config = config
        self.nodes = nodes
        self.recorder = recorder or Recorder(config)
        self.robust: RobustStrategy = config.make_strategy(1 if config.deployed else nodes)
        self.adversary = self._make_adversary()
        self._strategy: Strategy = self.adversary or self.robust
        model = self._make_model()
        self.names = list(model)
        self.arrays: list[NDArray[Any]] = list(model.values())

    # -- what each kind of federation implements -------------------------------------------------------

    @abstractmethod
    def _make_adversary(self) -> Adversary | None:
        """The adversary around `robust`, if there is anything for it to do."""

    @abstractmethod
    def _make_model(self) -> dict[str, NDArray[Any]]:
        """The initial global model."""

    @abstractmethod
    def _scores(self, server_round: int, grid: Grid) -> Record:
        """Scores of the global model after a round (0: before the first)."""

    def _observed(self, server_round: int) -> Record:
        """What the configuration asks to record of a round and the adversary does not measure."""
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
        if self.config.deployed:  # later rounds go on with the nodes that are connected then
            wait_for_nodes(grid, self.nodes)
        done = self._begin(grid, on_round)
        budget = CheckpointBudget(done)
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
        if self.adversary is not None:
            with naming(self.recorder.folder):
                self.adversary.save(self.recorder.folder)
        return Outcome(self.recorder.finish(self.names, self.arrays), self.recorder)

    def _begin(self, grid: Grid, on_round: OnRound) -> int:
        """Go on from the last checkpoint, if there is one; returns its round, else 0."""
        checkpoint = self.recorder.resume()
        if checkpoint is None:
            self._record(on_round, {"round": 0, **self._scores(0, grid)})
            return 0
        self._restore(grid, checkpoint)
        for record in self.recorder.history:
            on_round(record)
        return checkpoint.round

    def _round(self, server_round: int, grid: Grid) -> Record:
        started = time.perf_counter()
        arrays = array_record(dict(zip(self.names, self.arrays, strict=True)))
        self.robust.server_lr = self.config.server_lr_in(server_round)
        messages = self._strategy.configure_train(server_round, arrays, self._client_config(), grid)
        waited = time.perf_counter()
        replies = grid.send_and_receive(messages, timeout=self.config.round_timeout)
        answered = time.perf_counter()
        new_arrays, metrics = self._strategy.aggregate_train(server_round, replies)
        del replies
        aggregated = time.perf_counter()
        if new_arrays is not None:
            self.arrays = [array_view(array) for array in new_arrays.values()]
        last, adversary, train = self.robust.last_round, self.adversary, dict(metrics or {})
        record = describe(server_round, last, self.config)
        record.update(self._scores(server_round, grid))
        ended = time.perf_counter()
        record.update(adversary.observed() if adversary is not None else {})
        record.update(self._observed(server_round))
        record["seconds"] = {
            "round": ended - started,
            "wait": answered - waited,
            "train": _number(train.pop("train-seconds", 0.0)) * len(last.clients),
            "attack": 0.0,
            **(adversary.seconds if adversary is not None else {}),
            **last.seconds,
            "server": aggregated - answered,
            "evaluate": ended - aggregated,
        }
        record["train"] = train
        return record

    def _is_scored(self, server_round: int) -> bool:
        return server_round % self.config.eval_every == 0 or server_round == self.config.rounds

    def _let_clients_evaluate(self, server_round: int, grid: Grid) -> Record:
        arrays = array_record(dict(zip(self.names, self.arrays, strict=True)))
        messages = self._strategy.configure_evaluate(server_round, arrays, self._client_config(), grid)
        replies = grid.send_and_receive(messages, timeout=self.config.round_timeout)
        return dict(self._strategy.aggregate_evaluate(server_round, replies) or {})

    def _client_config(self) -> ConfigRecord:
        return ConfigRecord({SETTINGS: json.dumps(self.config.client_settings().model_dump())})

    def _record(self, on_round: OnRound, record: Record) -> None:
        self.recorder.round(record)
        on_round(record)

    # -- checkpoints -----------------------------------------------------------------------------------

    def _checkpoint(self, server_round: int, grid: Grid) -> None:
        server = {f"strategy.{k}": v for k, v in self.robust.state_dict().items()}
        if self.adversary is not None:
            server.update({f"adversary.{k}": v for k, v in self.adversary.state_dict().items()})
        clients = {}
        if self.config.clients_remember and not self.config.deployed:  # real nodes keep their own
            nodes = wait_for_nodes(grid, self.nodes)
            clients = fetch_client_state(grid, nodes, self.config.round_timeout)
        self.recorder.checkpoint(Checkpoint(server_round, self.arrays, server, clients))

    def _restore(self, grid: Grid, checkpoint: Checkpoint) -> None:
        self.arrays = checkpoint.arrays

        def part(prefix: str) -> dict[str, NDArray[Any]]:
            return {k.removeprefix(prefix): v for k, v in checkpoint.server.items() if k.startswith(prefix)}

        self.robust.load_state_dict(part("strategy."))
        if self.adversary is not None:
            self.adversary.load_state_dict(self.names, self.arrays, part("adversary."))
        if checkpoint.clients:
            nodes = wait_for_nodes(grid, self.nodes)
            timeout = self.config.round_timeout
            send_client_state(grid, nodes, checkpoint.clients, self.config.clients, timeout)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
