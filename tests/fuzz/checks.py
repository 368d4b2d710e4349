"""Checked after every round: who was accepted, who was blamed, for what, and what the model became."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

import numpy as np

from .judge import Account
from .kinds import Effect, Fate, Kind
from .models import Model

_LONGEST = 1000
_COMBINATIONS = 16


@dataclass(frozen=True)
class Failure:
    """Something that must not happen.

    Attributes:
        category: one of a few words to count by.
        text: what happened.
        round: in which round.
    """

    category: str
    text: str
    round: int = 0


WRONG_ACCEPTANCE, WRONG_BLAME, ESCAPE = "wrong acceptance", "wrong blame", "escape"


def match(
    accounts: Sequence[Account], clients: Sequence[int], rejected: Sequence[int], *, by_fate: bool
) -> list[tuple[bool, int]] | None:
    """Find for each account the one entry that is about it: (accepted, position); None if there are too few.

    A bipartite matching by augmenting paths; without `by_fate` whatever became of a client will do.
    """
    entries = [(True, i, c) for i, c in enumerate(clients)] + [(False, i, c) for i, c in enumerate(rejected)]
    fits = [
        [
            place
            for place, (accepted, _, name) in enumerate(entries)
            if name in account.names
            and not (by_fate and account.fate is (Fate.QUARANTINE if accepted else Fate.ACCEPT))
        ]
        for account in accounts
    ]
    taken: dict[int, int] = {}

    def assign(account: int, tried: set[int]) -> bool:
        for place in fits[account]:
            if place not in tried:
                tried.add(place)
                if place not in taken or assign(taken[place], tried):
                    taken[place] = account
                    return True
        return False

    if not all(assign(account, set()) for account in range(len(accounts))):
        return None
    places = {account: place for place, account in taken.items()}
    return [entries[places[account]][:2] for account in range(len(accounts))]


def check_accounts(accounts: Sequence[Account], record: Any, also: set[int]) -> Iterator[Failure]:
    """Every client that was asked is in one place, once, and the right one.

    Args:
        accounts: of all clients that were asked.
        record: `last_round`.
        also: ids that may be rejected, too: of a hostile node's clients that were not asked.
    """
    clients = list(record.clients)
    rejected = [client for client, _ in record.rejections if client not in also]
    said = f"clients {clients}, rejections {[tuple(r) for r in record.rejections]!s:.600}"
    innocent = {account.known for account in accounts if account.benign}
    blamed = innocent & set(rejected)
    if blamed:
        yield Failure(WRONG_BLAME, f"benign {sorted(blamed)} rejected: {said}")
    if len({*clients, *rejected}) != len(clients) + len(rejected):
        yield Failure("accounting", f"somebody is counted twice: {said}")
    elif len(clients) + len(rejected) != len(accounts):
        yield Failure("accounting", f"{len(accounts)} were asked: {said}")
    if match(accounts, clients, rejected, by_fate=True) is not None:
        return
    places = match(accounts, clients, rejected, by_fate=False)
    if places is None:
        yield Failure("accounting", f"not everybody is named: {[a.names for a in accounts]}; {said}")
        places = []
    for account, (accepted, _) in zip(accounts, places, strict=False):
        told = f"{sorted(account.names)} ({account.why}): {said}"
        if accepted and account.fate is Fate.QUARANTINE:
            yield Failure(WRONG_ACCEPTANCE, told)
        elif not accepted and account.fate is Fate.ACCEPT:
            yield Failure(WRONG_BLAME, told)


def check_texts(record: Any, lines: Sequence[str]) -> Iterator[Failure]:
    """Reasons and log lines are one printable line of bounded length."""
    notes = [*record.rejections, *record.dropped, *getattr(record, "ignored", ())]
    said = [reason for _, reason in notes]
    for text in [*said, *([record.skipped] if record.skipped else []), *lines]:
        if not text.isprintable() or len(text) > _LONGEST:
            yield Failure("text", f"{len(text)} characters: {text!r:.200}")


def check_model(new: Sequence[np.ndarray], model: Model) -> Iterator[Failure]:
    """The new model is one, and finite."""
    if [(a.shape, a.dtype) for a in new] != list(zip(model.shapes, model.dtypes, strict=True)):
        yield Failure("model", f"arrays {[(a.shape, a.dtype.str) for a in new]}")
    elif not all(np.isfinite(a).all() for a in new):
        yield Failure("not finite", f"{[a.tolist() for a in new]}")


def accepted_outcomes(accounts: Sequence[Account], record: Any, also: set[int]) -> list[Account] | None:
    """The accounts of the clients whose uploads were aggregated, None if that is not clear."""
    rejected = [client for client, _ in record.rejections if client not in also]
    places = match(accounts, record.clients, rejected, by_fate=True)
    if places is None:
        return None
    chosen = [account for account, (accepted, _) in zip(accounts, places, strict=True) if accepted]
    return chosen if len(chosen) == len(record.clients) and all(a.outcomes for a in chosen) else None


def check_aggregate(
    accepted: Sequence[Account], kind: Kind, rule: str, new: np.ndarray | None, skipped: str | None
) -> Iterator[Failure]:
    """The new row is what the rule makes of the accepted uploads, which any of their outcomes may be.

    Args:
        accepted: of the clients that were aggregated.
        kind: of the uploads.
        rule: name of a rule whose result is known.
        new: (width,) the new model; None if the round was skipped.
        skipped: why.
    """
    nearest = "nothing known"
    for outcomes in islice(product(*(account.outcomes for account in accepted)), _COMBINATIONS):
        effects: list[Effect] = [effect for effect, _ in outcomes]
        weights = np.array([size for _, size in outcomes])
        expected = kind.expected(rule, effects, weights, kind.model.row_dtype)
        if expected is None:
            return
        row, tolerance = expected.row, expected.tolerance
        near_limit = not (np.abs(row) < 0.5 * kind.model.largest).all()
        if near_limit or (new is None and not any(effect.sent[: kind.model.d].any() for effect in effects)):
            return
        if new is not None:
            off = np.where(expected.may_stay & (new == kind.start), 0, np.abs(new - row) - tolerance)
            if (off <= 0).all():
                return
            at = int(off.argmax())
            nearest = f"column {at}: {new[at]!r}, expected {row[at]!r} within {tolerance[at]:.3g}"
    if accepted:
        category = "aggregate" if new is not None else "skipped"
        yield Failure(category, nearest if new is not None else f"for no reason: {skipped}")


def check_bounded(
    new: np.ndarray | None, start: np.ndarray, benign: np.ndarray, skipped: str | None
) -> Iterator[Failure]:
    """Benign uploads decide how far the model moves.

    Args:
        new: (d,) the new parameters, None if the round was skipped.
        start: (d,) those before.
        benign: (n, d) pseudo-gradients of benign clients.
        skipped: why.
    """
    if new is None:
        yield Failure("skipped", f"though few were hostile: {skipped}")
        return
    most = 10 + 20 * float(np.linalg.norm(benign, axis=1).max())
    moved = float(np.linalg.norm(new - start))
    if not moved <= most:
        yield Failure("not robust", f"moved by {moved:.4g}, benign clients by at most {most:.4g} / 20")
