"""The rounds of one federated training, on any Grid."""

import json
import threading
import time
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
from byzflower.server.adversary import Adversary
from byzflower.server.beginning import beginning
from byzflower.server.config import RunConfig
from byzflower.server.diagnostics import principal_plane, vulnerability
from byzflower.server.plots import save_similarity
from byzflower.server.recorder import Checkpoint, Record, Recorder, detection
from byzflower.strategies.arfrs import MomentsStrategy
from byzflower.strategies.base import RobustStrategy, assign_clients, wait_for_nodes
from byzflower.uploads.exchange import guarded
from byzflower.uploads.flower_compat import array_record, array_view, poll_often, records_of

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


class _CheckpointBudget:
    """Lets checkpoints take at most a twentieth of a run's time.

    Rounds that take long are saved every time; fast ones with a large state are not slowed down.
    """

    def __init__(self, saved_round: int) -> None:
        self.saved_round = saved_round
        self._next = 0.0

    def allows(self) -> bool:
        return time.monotonic() >= self._next

    @contextmanager
    def saving(self, server_round: int) -> Iterator[None]:
        started = time.monotonic()
        yield
        ended = time.monotonic()
        self.saved_round, self._next = server_round, ended + 20 * (ended - started)


class Federation:
    """One configured run: strategy, adversary, model and records."""

    def __init__(self, config: RunConfig, nodes: int, recorder: Recorder | None = None) -> None:
        """Prepare a run that waits for at least `nodes` nodes."""
        self.config = config
        self.nodes = nodes
        self.recorder = recorder or Recorder(config)
        self.robust: RobustStrategy = config.make_strategy(1 if config.deployed else nodes)
        attack = config.collusive_attack()
        self.strategy: Strategy = self.robust
        masks = config.make_mask_attack()
        observed = config.diagnostics or config.embed_rounds
        collusive = attack is not None or masks is not None
        if collusive or (observed and not isinstance(self.robust, MomentsStrategy)):
            self.strategy = Adversary(
                self.robust,
                attack,
                mask_attack=masks,
                byzantine=config.byzantine_ids(),
                seed=config.seed,
                diagnostics=config.diagnostics,
                embed_rounds=config.embed_rounds,
                assumed=config.byzantine / config.clients,
            )
        self.names, self.arrays, self.evaluate = beginning(config)

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
            self._record(on_round, {"round": 0, **self.evaluate(self.arrays)})
        train_config = ConfigRecord({SETTINGS: json.dumps(self.config.client_settings().model_dump())})
        evaluate_config = ConfigRecord(dict(train_config))
        budget = _CheckpointBudget(done)
        for server_round in range(done + 1, self.config.rounds + 1):
            if stop is not None and stop.is_set():
                if budget.saved_round < server_round - 1:
                    self._checkpoint(server_round - 1, grid)
                return Outcome({}, self.recorder, interrupted=True)
            self._record(on_round, self._round(server_round, grid, train_config, evaluate_config))
            if budget.allows() and server_round < self.config.rounds:
                with budget.saving(server_round):
                    self._checkpoint(server_round, grid)
        if isinstance(self.strategy, Adversary) and self.strategy.similarity is not None:
            save_similarity(self.strategy.similarity, self.config.byzantine_ids(), self.recorder.folder)
        return Outcome(self.recorder.finish(self.names, self.arrays), self.recorder)

    def _round(
        self, server_round: int, grid: Grid, train_config: ConfigRecord, evaluate_config: ConfigRecord
    ) -> Record:
        started = time.perf_counter()
        arrays = array_record(dict(zip(self.names, self.arrays, strict=True)))
        self.robust.server_lr = self.config.server_lr_in(server_round)
        messages = self.strategy.configure_train(server_round, arrays, train_config, grid)
        waited = time.perf_counter()
        replies = grid.send_and_receive(messages, timeout=self.config.round_timeout)
        answered = time.perf_counter()
        new_arrays, metrics = self.strategy.aggregate_train(server_round, replies)
        del replies
        aggregated = time.perf_counter()
        if new_arrays is not None:
            arrays = new_arrays
            self.arrays = [array_view(array) for array in arrays.values()]
        record = self._describe(server_round)
        train = dict(metrics or {})
        if self.config.evaluate_clients:
            messages = self.strategy.configure_evaluate(server_round, arrays, evaluate_config, grid)
            replies = grid.send_and_receive(messages, timeout=self.config.round_timeout)
            record["clients_evaluate"] = dict(self.strategy.aggregate_evaluate(server_round, replies) or {})
        if server_round % self.config.eval_every == 0 or server_round == self.config.rounds:
            record.update(self.evaluate(self.arrays))
        ended = time.perf_counter()
        adversary = self.strategy if isinstance(self.strategy, Adversary) else None
        if self.config.diagnostics and adversary is not None:
            record["diagnostics"] = adversary.info
        if isinstance(self.robust, MomentsStrategy):
            record.update(self._observe_moments(self.robust, server_round))
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

    def _observe_moments(self, strategy: MomentsStrategy, server_round: int) -> Record:
        """What is asked for about a round of moments, which an adversary cannot see."""
        observed: Record = {}
        byzantine = self.config.byzantine_ids()
        if self.config.diagnostics:
            observed["diagnostics"] = strategy.resilience(set(range(self.config.clients)) - byzantine)
        if server_round in self.config.embed_rounds and (clients := strategy.last_round.clients):
            planes = {what: principal_plane(rows) for what, rows in strategy.seen().items()}
            who = [i for i, client in enumerate(clients) if client in byzantine]
            observed["planes"] = {**planes, "byzantine": who}
        return observed

    def _describe(self, server_round: int) -> Record:
        """What happened to whom, from the strategy's own record."""
        last = self.robust.last_round
        byzantine = set(self.config.byzantine_ids())
        attacked = self.config.attacked(server_round)
        quarantined = {client for client, _ in last.rejections}
        present = (set(last.clients) | quarantined) & byzantine if attacked else set()
        kept = last.clients if last.selected is None else last.selected
        excluded = quarantined | (set(last.clients) - set(kept))
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
        }

    def _contributors(self, byzantine: set[int], attacked: bool) -> dict[str, dict[str, float]]:
        """How much of what packs the attackers are, if uploads are sparse."""
        last = self.robust.last_round
        if last.masks is None or not attacked:
            return {}
        who = np.isin(last.clients, [*byzantine])
        kept = np.isin(last.clients, last.clients if last.selected is None else last.selected)
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


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
