"""What must become of each client, decided from the raw content of the replies alone.

An independent reading of the documented contract:

* A reply has one ArrayRecord, and one MetricRecord with num-examples in (0, 10**9]; ids are non-negative
  integers below 2**64; a cohort's metrics are lists, one value a client.
* A node that is one client is known by the id that it names, or by its own. Ids are bound once a reply
  has passed; a claim never displaces or blames another client.
* Of a cohort, only the clients that were asked of this node count, each once.
* Who was not asked is not heard.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

from .content import ARRAYS, CONFIG, METRICS, Reply
from .kinds import Effect, Fate, Kind, Malformed
from .mutations import FAILED, ID, SIZE

_MOST_EXAMPLES = 10**9


@dataclass
class Account:
    """What must become of one client of a round.

    Attributes:
        names: ids by which it may be known.
        known: the id by which a benign one is, and nobody else may be.
        fate: what must become of it.
        why: the reason.
        outcomes: what its upload may mean, with its number of examples, if it is accepted.
        benign: it has done nothing unusual, and must be accepted.
    """

    names: set[int]
    fate: Fate
    why: str = ""
    known: int = -1
    outcomes: list[tuple[Effect, float]] = field(default_factory=list)
    benign: bool = False


@dataclass
class _Content:
    """What a reply says.

    Attributes:
        cohort: whether it is in a cohort's form.
        ids: of the k clients that it claims to be from.
        sizes: their numbers of examples; None for one that is not believable.
        effects: what they sent.
        certain: whether the contract says that its form must be understood.
        failed: ids that it says have failed.
    """

    cohort: bool
    ids: list[int]
    sizes: list[float | None]
    effects: list[Effect]
    certain: bool
    failed: set[str]


def _read(reply: Reply, kind: Kind) -> _Content:
    """Understand a reply.

    Raises:
        Malformed: it is none that may be accepted.
    """
    if reply.error is not None:
        raise Malformed("an error")
    arrays, metrics = reply.of_kind(ARRAYS), reply.of_kind(METRICS)
    if len(arrays) != 1 or len(metrics) != 1:
        raise Malformed(f"{len(arrays)} ArrayRecords, {len(metrics)} MetricRecords")
    numbers = metrics[0].values
    if SIZE not in numbers:
        raise Malformed("no num-examples")
    claimed = numbers.get(ID, reply.node)
    cohort = isinstance(claimed, list)
    ids = claimed if isinstance(claimed, list) else [claimed]
    if not all(isinstance(one, int) for one in ids):
        raise Malformed("ids that are no integers")
    if isinstance(numbers[SIZE], list) != cohort:
        raise Malformed("num-examples has another form than client-id")
    lists = [value for value in numbers.values() if isinstance(value, list)] if cohort else []
    if any(len(value) != len(ids) for value in lists):
        raise Malformed("lists of different lengths")
    decoded = kind.decode(arrays[0].values, len(ids), cohort=cohort)
    sizes = numbers[SIZE] if cohort else [numbers[SIZE]]
    others = reply.of_kind(CONFIG)
    failed = {key for record in others if record.name == FAILED for key in record.values}
    certain = decoded.certain and not others and min(ids, default=0) >= 0
    return _Content(cohort, ids, [_size(size) for size in sizes], decoded.effects, certain, failed)


def _size(number: float) -> float | None:
    return float(number) if isfinite(number) and 0 < number <= _MOST_EXAMPLES else None


def _soften(fate: Fate, firm: bool) -> Fate:
    return Fate.EITHER if fate is Fate.ACCEPT and not firm else fate


class Judge:
    """Judges the rounds of one case, in which nodes may have been hostile before.

    Attributes:
        suspects: positions of nodes that were hostile so far.
        claims: ids that each node has ever claimed, by its own id.
    """

    def __init__(self, ids: Sequence[int], *, named: bool) -> None:
        self.ids, self.named = list(ids), named
        self.suspects: set[int] = set()
        self.claims: dict[int, set[int]] = {node: set() for node in ids}
        if named:
            self.claims.update({node: {place} for place, node in enumerate(ids[:-1])})

    def ordinary(self, asked: Sequence[int], replies: Sequence[Reply], kind: Kind) -> list[Account]:
        """One account for each node that was asked and is one client."""
        heard: dict[int, list[Reply]] = {}
        for reply in replies:
            heard.setdefault(reply.node, []).append(reply)
        for node in asked:
            for reply in heard.get(node, []):
                self.claims[node] |= _claims(reply)
        return [self._ordinary(node, heard.get(node, []), kind) for node in asked]

    def _ordinary(self, node: int, replies: Sequence[Reply], kind: Kind) -> Account:
        place = self.ids.index(node)
        names = {node, *self.claims[node]}
        outcomes: list[tuple[Effect, float]] = []
        fates: list[Fate] = []
        why = "" if replies else "silent"
        for reply in replies:
            try:
                content = _read(reply, kind)
                if len(content.ids) != 1:
                    raise Malformed(f"{len(content.ids)} clients in one")
                if min(content.ids) < 0:
                    raise Malformed("a negative id")
                size = content.sizes[0]
                if size is None:
                    raise Malformed("an unbelievable num-examples")
            except Malformed as fault:
                fates.append(Fate.QUARANTINE)
                why = str(fault)
                continue
            effect = content.effects[0]
            firm = content.certain and not content.cohort and not self._contested(node)
            fates.append(_soften(effect.fate, firm))
            why = why or effect.why
            if effect.fate is not Fate.QUARANTINE:
                outcomes.append((effect, size))
        fate = _combined(fates)
        benign = place not in self.suspects and bool(replies) and fate is not Fate.QUARANTINE
        mine = self.named and not any(place in self.claims[other] for other in self.ids if other != node)
        known = place if mine else node
        return Account(names, Fate.ACCEPT if benign else fate, why, known, outcomes, benign)

    def _contested(self, node: int) -> bool:
        """Whether a node has claimed more than one id, or one that may be another's."""
        mine = self.claims[node]
        others = {own for other in self.ids if other != node for own in (other, *self.claims[other])}
        return len(mine) > 1 or bool(mine & others)

    def cohorts(
        self, asked: Mapping[int, Sequence[int]], replies: Sequence[Reply], kind: Kind
    ) -> list[Account]:
        """One account for each client that was asked of a node."""
        accounts = []
        for node, clients in asked.items():
            mine = [reply for reply in replies if reply.node == node]
            found = [_cohort(reply, clients, kind) for reply in mine]
            place = self.ids.index(node)
            for client in clients:
                parts = [one[client] for one in found]
                fate = _combined([part.fate for part in parts])
                why = "; ".join(part.why for part in parts) or "silent"
                outcomes = [outcome for part in parts for outcome in part.outcomes]
                benign = place not in self.suspects and bool(mine) and fate is not Fate.QUARANTINE
                fate = Fate.ACCEPT if benign else fate
                accounts.append(Account({client}, fate, why, client, outcomes, benign))
        return accounts


def _claims(reply: Reply) -> set[int]:
    """Ids that a node may be known by after a reply."""
    claimed: set[int] = set()
    for record in reply.of_kind(METRICS):
        value = record.values.get(ID, reply.node)
        claimed |= {one for one in (value if isinstance(value, list) else [value]) if isinstance(one, int)}
    return {one for one in claimed if 0 <= one < 2**64}


def _combined(fates: Sequence[Fate]) -> Fate:
    """Of several replies of one client: what all agree on."""
    if not fates:
        return Fate.QUARANTINE
    return (
        fates[0] if len(set(fates)) == 1 and (len(fates) == 1 or fates[0] is Fate.QUARANTINE) else Fate.EITHER
    )


def _cohort(reply: Reply, clients: Sequence[int], kind: Kind) -> dict[int, Account]:
    """What one reply of a node makes of each client that it was asked for."""
    try:
        content = _read(reply, kind)
    except Malformed as fault:
        return {client: Account({client}, Fate.QUARANTINE, str(fault)) for client in clients}
    found = {}
    for client in clients:
        account = Account({client}, Fate.QUARANTINE, "not in its node's reply")
        fates = []
        for place in (i for i, one in enumerate(content.ids) if one == client):
            effect, size = content.effects[place], content.sizes[place]
            fate = effect.fate if size is not None else Fate.QUARANTINE
            account.why = effect.why if size is not None else "an unbelievable num-examples"
            fates.append(_soften(fate, content.certain))
            if size is not None and fate is not Fate.QUARANTINE:
                account.outcomes.append((effect, size))
        account.fate = _combined(fates)
        found[client] = account
    return found
