"""Make a failing case small: fewer mutations, rounds and nodes, and as much as possible as by default."""

from collections.abc import Callable, Iterator

from .cases import Case
from .checks import Failure

_TRIES = 400


def shrink(case: Case, run: Callable[[Case], list[Failure]]) -> tuple[Case, list[Failure]]:
    """Greedily simplify a case that fails, as long as it fails in the same way.

    Args:
        case: one that fails.
        run: runs a case.

    Returns:
        The smallest case found, and its failures.
    """
    failures = run(case)
    categories = {failure.category for failure in failures[:1]}
    tries, simpler = 0, True
    while simpler and tries < _TRIES:
        simpler = False
        for candidate in _simpler(case):
            tries += 1
            found = _attempt(candidate, run)
            if categories & {failure.category for failure in found[:1]}:
                case, failures, simpler = candidate, found, True
                break
    return case, failures


def _attempt(case: Case, run: Callable[[Case], list[Failure]]) -> list[Failure]:
    try:
        return run(case)
    except Exception:  # options that do not fit each other any more
        return []


def _simpler(case: Case) -> Iterator[Case]:
    """Cases that are one step simpler."""
    for i in range(len(case.mutations)):
        yield case.without(mutations=case.mutations[:i] + case.mutations[i + 1 :])
    last = max((mutation.round for mutation in case.mutations), default=1)
    for rounds in {last, case.rounds - 1}:
        if last <= rounds < case.rounds and rounds >= 1:
            yield case.without(rounds=rounds)
    if case.nodes > 2 and all(mutation.node < case.nodes - 1 for mutation in case.mutations):
        yield case.without(nodes=case.nodes - 1)
    if case.nodes > 2:
        yield from _on_the_first_nodes(case)
    if case.clients is not None:
        yield case.without(clients=None)
        if case.clients > case.nodes:
            yield case.without(clients=case.clients - 1)
    for i in range(len(case.pre)):
        yield case.without(pre=case.pre[:i] + case.pre[i + 1 :])
    defaults = {"large_ids": False, "named": True, "fraction": 1.0, "byzantine": 0}
    for name, value in defaults.items():
        if getattr(case, name) != value:
            yield case.without(**{name: value})
    if case.seed >= 16:
        yield case.without(seed=1)


def _on_the_first_nodes(case: Case) -> Iterator[Case]:
    """The same mutations on the nodes that come first, so that the others can be left out."""
    used = sorted({mutation.node for mutation in case.mutations if mutation.node < case.nodes})
    place = {node: i for i, node in enumerate(used)}
    if used != list(range(len(used))):
        moved = tuple(type(m)(m.round, place.get(m.node, m.node), m.what, m.args) for m in case.mutations)
        yield case.without(mutations=moved)
