"""One case, run: the strategy gets its replies round by round, and everything is checked."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from flwr.common import ConfigRecord

from byzflower.flower.compat import array_record
from byzflower.strategies import RobustStrategy, TooFewClients, TooManySkippedRounds

from .cases import Case
from .checks import (
    ESCAPE,
    Failure,
    accepted_outcomes,
    check_accounts,
    check_aggregate,
    check_bounded,
    check_model,
    check_texts,
)
from .content import Reply
from .judge import Account, Judge
from .kinds import KINDS, Kind
from .mutations import HARMLESS, UNLUCKY
from .rules import is_bounded, known_rule, make_strategy
from .world import FewNodes, World, by_node

_MOST_SKIPPED = 3


class _Lines(logging.Handler):
    """Keeps what Flower's logger is told, instead of writing it to the console."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append(record.getMessage())


@contextmanager
def _logged() -> Iterator[list[str]]:
    logger, handler = logging.getLogger("flwr"), _Lines()
    kept, level = logger.handlers, logger.level
    logger.handlers, logger.propagate = [handler], False
    if level != logging.WARNING:  # to set it forgets much that the logger knows
        logger.setLevel(logging.WARNING)
    try:
        yield handler.lines
    finally:
        logger.handlers = kept
        if level != logging.WARNING:
            logger.setLevel(level)


def run_case(case: Case) -> list[Failure]:
    """Run a case; returns what failed, nothing if all is well."""
    if case.kind == "apply":
        return list(_run_rows(case))
    with _logged() as lines:
        return list(_Trial(case, lines).run())


def _error(error: BaseException) -> str:
    where = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    place = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where else "?"
    return f"{type(error).__name__}: {error!s:.300} at {place}"


class _Trial:
    """The rounds of one case."""

    def __init__(self, case: Case, lines: list[str]) -> None:
        self.case, self.lines = case, lines
        self.world = World(case)
        self.judge = Judge(self.world.ids, named=case.named)
        self.strategy: RobustStrategy = make_strategy(case)
        self.arrays = self.world.arrays
        self.skipped = 0

    def run(self) -> Iterator[Failure]:
        """Run all rounds, up to the first that fails."""
        for server_round in range(1, self.case.rounds + 1):
            found = [Failure(f.category, f.text, server_round) for f in self._round(server_round)]
            yield from found
            if found:
                return

    def _round(self, server_round: int) -> Iterator[Failure]:
        case, world, edits = self.case, self.world, by_node(self.case.mutations, server_round)
        gone = {place for place, own in edits.items() if any(edit.what == "absent" for edit in own)}
        here = [node for place, node in enumerate(world.ids[:-1]) if place not in gone or case.nodes < 4]
        here = here if len(here) >= 2 else world.ids[:-1]
        try:
            messages = self._configure(server_round, here)
        except Exception as error:
            yield Failure(ESCAPE, _error(error))
            return
        asked = {m.metadata.dst_node_id: _asked_of(m) for m in messages}
        kind = self._kind(messages[0])
        replies = []
        for place, node in enumerate(world.ids):
            own = edits.get(place, [])
            strange = node not in asked
            if strange and not any(edit.what == "uninvited" for edit in own):
                continue
            clients = asked.get(node, next(iter(asked.values())))
            replies.append(world.answer(server_round, place, kind, clients, own))
        delivered, contents = world.deliver(replies)
        hostile = {
            place for place, own in edits.items() if any(e.what not in HARMLESS | UNLUCKY for e in own)
        }
        self.judge.suspects |= hostile
        accounts = self._judged(asked, contents, kind)
        del self.lines[:]
        try:
            arrays, metrics = self.strategy.aggregate_train(server_round, delivered)
        except TooManySkippedRounds as error:
            arrays, metrics = None, None
            if self.skipped + 1 < _MOST_SKIPPED:
                yield Failure(ESCAPE, _error(error))
        except Exception as error:
            yield Failure(ESCAPE, _error(error))
            return
        also = self._not_asked(asked, contents)
        yield from self._checked(accounts, arrays, metrics, kind, also)
        try:
            if case.seed % 16 == 0:
                self.strategy.aggregate_evaluate(server_round, delivered)
        except Exception as error:
            yield Failure(ESCAPE, f"evaluation: {_error(error)}")

    def _configure(self, server_round: int, nodes: Sequence[int]) -> list[Any]:
        arrays = array_record(dict(zip(self.world.model.names, self.arrays, strict=True)))
        grid: Any = FewNodes(nodes)
        return list(self.strategy.configure_train(server_round, arrays, ConfigRecord(), grid))

    def _kind(self, message: Any) -> Kind:
        """The upload kind as this round's message asks for it."""
        config = {**message.content["config"], **self.case.options}
        arrays = self.arrays
        if "moments" in self.case.kind:
            arrays = [array.numpy() for array in message.content["arrays"].values()]
        return KINDS[self.case.kind](self.world.model, arrays, config)

    def _judged(self, asked: dict[int, list[int]], contents: Sequence[Reply], kind: Kind) -> list[Account]:
        if self.case.clients is None:
            return self.judge.ordinary(list(asked), contents, kind)
        return self.judge.cohorts(asked, contents, kind)

    def _not_asked(self, asked: dict[int, list[int]], contents: Sequence[Reply]) -> set[int]:
        """Clients of hostile cohorts that were not asked this round, which may be named as such."""
        if self.case.clients is None or self.case.fraction == 1:
            return set()
        return set(range(self.case.clients)) - {client for own in asked.values() for client in own}

    def _checked(
        self, accounts: Sequence[Account], arrays: Any, metrics: Any, kind: Kind, also: set[int]
    ) -> Iterator[Failure]:
        record = self.strategy.last_round
        yield from check_accounts(accounts, record, also)
        yield from check_texts(record, self.lines)
        if (arrays is None) != (record.skipped is not None):
            yield Failure("skipped", f"record says {record.skipped!r}, arrays are {type(arrays).__name__}")
        self.skipped = self.skipped + 1 if arrays is None else 0
        row = None
        if arrays is not None:
            new = [array.numpy() for array in arrays.values()]
            faults = list(check_model(new, self.world.model))
            yield from faults
            if faults:
                return
            self.arrays, row = new, self.world.model.row(new)
        if metrics is not None and not all(np.isfinite(value) for value in metrics.values()):
            yield Failure("metrics", f"{dict(metrics)}")
        accepted = accepted_outcomes(accounts, record, also)
        if not accepted:
            return
        rule = known_rule(self.case)
        if rule:
            yield from check_aggregate(accepted, kind, rule, row, record.skipped)
        benign = [account.outcomes[0][0].row for account in accepted if account.benign]
        if benign and is_bounded(self.case, len(accepted), len(accepted) - len(benign), _weight(accepted)):
            d, new_row = kind.model.d, None if row is None else row[: kind.model.d]
            yield from check_bounded(new_row, kind.start[:d], np.array(benign)[:, :d], record.skipped)


def _weight(accepted: Sequence[Account]) -> float:
    """The share of the weights that hostile clients claim."""
    sizes = [(account.outcomes[0][1], account.benign) for account in accepted]
    return sum(size for size, benign in sizes if not benign) / sum(size for size, _ in sizes)


def _asked_of(message: Any) -> list[int]:
    """The clients that a message asks for; none if it leaves that to the node."""
    return [int(client) for client in message.content["config"].get("client-ids", [])]


def _run_rows(case: Case) -> Iterator[Failure]:
    """The rule and its pre-aggregations on rows as they are, extreme ones too; nothing else of a strategy."""
    world, strategy = World(case), make_strategy(case)
    model = world.model
    edits = by_node(case.mutations, 1)
    strategy.set_global(1, dict(zip(model.names, world.arrays, strict=True)))
    kind = KINDS["gradient"](model, world.arrays, {})
    rows = []
    for place in range(case.nodes):
        reply = world.answer(1, place, kind, [], edits.get(place, []))
        rows.append(kind.decode(reply.records[0].values, 1, cohort=False).effects[0].row)
    matrix = np.array(rows)[:, : model.d].astype(model.row_dtype)
    keep = np.isfinite(matrix).all(axis=1)
    benign = np.array([place not in edits for place in range(case.nodes)])[keep]
    matrix = matrix[keep]
    weights = torch.full((len(matrix),), 1 / max(1, len(matrix)), dtype=torch.float64)
    before = matrix.copy()
    try:
        result = strategy.apply(torch.from_numpy(matrix), weights)
    except TooFewClients as reason:
        if is_bounded(case, len(matrix), int((~benign).sum())):
            yield Failure("skipped", str(reason), 1)
        return
    except Exception as error:
        yield Failure(ESCAPE, _error(error), 1)
        return
    if not np.array_equal(before, matrix):
        yield Failure("model", "the rule changed its rows", 1)
    if is_bounded(case, len(matrix), int((~benign).sum())):
        step = result.gradient.double().numpy()
        yield from check_bounded(step, np.zeros(len(step)), matrix[benign].astype(np.float64), None)
