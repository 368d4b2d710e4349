"""Who speaks for whom: the nodes and clients that a round asks, and whose each part of their replies is."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from typing_extensions import override

from byzflower.uploads.base import Ignored, Rejection

_SHOWN = 5  # of the ids in a reason


class ReplyFault(NamedTuple):
    """What is wrong with a reply, or with one client's part of it.

    Attributes:
        client: the id as the reply claims it; None if the whole reply is of no use.
        reason: what is wrong.
    """

    client: int | None
    reason: str


class Said(NamedTuple):
    """The claims of a node's reply.

    Attributes:
        client_ids: of the clients whose part of it is well-formed.
        faults: of the other clients' parts, or of the whole.
    """

    client_ids: Sequence[int]
    faults: Sequence[ReplyFault]


class Hearing(NamedTuple):
    """The outcome for the clients that were asked: each is in exactly one of the first three.

    Attributes:
        heard: for each node, positions in its reply, ascending, and ids of the clients there.
        rejections: clients whose part is at fault.
        silent: clients that were asked and did not reply.
        ignored: what else nodes said, without effect: at most one entry for each.
    """

    heard: dict[int, dict[int, int]]
    rejections: list[Rejection]
    silent: list[Rejection]
    ignored: list[Ignored]


class Roster(ABC):
    """Which clients each node speaks for.

    What a node says is about its own clients and nobody else's, and counts only if it was asked.

    Attributes:
        asked: the nodes that were asked last, ascending, and the clients that were asked of each.
    """

    def __init__(self) -> None:
        """Start with nobody."""
        self.asked: dict[int, list[int]] = {}

    @abstractmethod
    def meet(self, nodes: Sequence[int]) -> Mapping[int, Sequence[int]]:
        """Update the connected nodes, before some of them are asked.

        Returns:
            The clients that each can be asked for.
        """

    def ask(self, asked: Mapping[int, Sequence[int]]) -> None:
        """Set the nodes and clients whose replies are expected next."""
        self.asked = {node: list(asked[node]) for node in sorted(asked)}

    @abstractmethod
    def hear(self, said: Mapping[int, Said]) -> Hearing:
        """Attribute what some of the asked nodes said."""

    def settle(self, accepted: Iterable[int], quarantined: Iterable[Rejection]) -> list[Rejection]:
        """Record which of the clients that were heard last were accepted once their values were checked.

        Returns:
            The quarantined clients by the ids that they are known by for certain.
        """
        return list(quarantined)


class CohortRoster(Roster):
    """Logical clients 0, 1, ... that the server spreads over the nodes, each of which answers for its own."""

    def __init__(self, num_clients: int) -> None:
        """Plan for so many clients."""
        super().__init__()
        self._num_clients = num_clients
        self._clients: dict[int, list[int]] = {}

    @override
    def meet(self, nodes: Sequence[int]) -> Mapping[int, Sequence[int]]:
        """Moves the clients of nodes that are gone to the nodes with the fewest."""
        if not self._clients:
            self._clients = assign_clients(self._num_clients, nodes)
        gone = self._clients.keys() - set(nodes)
        orphans = sorted(client for node in gone for client in self._clients.pop(node))
        for node in nodes:
            self._clients.setdefault(node, [])
        for client in orphans:
            node = min(nodes, key=lambda n: (len(self._clients[n]), n))
            self._clients[node].append(client)
        return self._clients

    @override
    def hear(self, said: Mapping[int, Said]) -> Hearing:
        """A client whose own node reports a fault is at fault, whatever else it sends for it."""
        hearing = Hearing({}, [], [], [])
        for node, clients in self.asked.items():
            if node not in said:
                hearing.silent.extend(Rejection(client, "no reply in time") for client in clients)
                continue
            own, reply = set(clients), said[node]
            faults = dict(reversed(reply.faults))
            places: dict[int, int] = {}
            for position, client in enumerate(reply.client_ids):
                if client in own and client not in faults:
                    places.setdefault(client, position)
            hearing.heard[node] = {position: client for client, position in places.items()}
            excess = _excess(reply, own)
            if excess:
                hearing.ignored.append(Ignored(node, excess))
            missing = f"not in its node's reply, which {excess}" if excess else "not in its node's reply"
            for client in own.difference(places):
                reason = faults.get(client, faults.get(None))
                if reason is None:
                    hearing.silent.append(Rejection(client, missing))
                else:
                    hearing.rejections.append(Rejection(client, reason))
        hearing.rejections.sort()
        hearing.silent.sort()
        return hearing


class NodeRoster(Roster):
    """Every node is one client, known by its node id; ids that it claims are ignored."""

    @override
    def meet(self, nodes: Sequence[int]) -> Mapping[int, Sequence[int]]:
        return {node: [node] for node in nodes}

    @override
    def hear(self, said: Mapping[int, Said]) -> Hearing:
        hearing = Hearing({}, [], [], [])
        fit: dict[int, int] = {}
        for node in self.asked:
            fault = self._fault(node, said[node]) if node in said else None
            if node not in said:
                hearing.silent.append(Rejection(self._known(node), "no reply in time"))
            elif fault is not None:
                hearing.rejections.append(Rejection(self._known(node), fault))
            else:
                fit[node] = said[node].client_ids[0]
        names, ignored = self._names(fit)
        hearing.heard.update({node: {0: name} for node, name in names.items()})
        hearing.ignored.extend(ignored)
        return hearing

    def _known(self, node: int) -> int:
        """The id that a node is known by for certain."""
        return node

    def _fault(self, node: int, said: Said) -> str | None:
        if said.faults:
            return said.faults[0].reason
        if len(said.client_ids) != 1:
            return f"one node claims to be {len(said.client_ids)} clients"
        return None

    def _names(self, claims: Mapping[int, int]) -> tuple[dict[int, int], list[Ignored]]:
        """The ids of this round's nodes, given their claims, and the claims that have no effect."""
        return {node: node for node in claims}, []


class ClaimRoster(NodeRoster):
    """Every node is one client, known by the id that it claims, or by its node id if it claims none.

    A claim proves nothing, so it takes nothing from others: it counts only if the id belongs to no client, is
    no node's id, and is claimed by no other node in this round; else the node is known by its node id. With
    its first accepted upload the id becomes the node's own, as long as it is connected.
    """

    def __init__(self) -> None:
        """Start without nodes."""
        super().__init__()
        self._bound: dict[int, int] = {}
        self._owner: dict[int, int] = {}
        self._claimed: dict[int, int] = {}

    @override
    def meet(self, nodes: Sequence[int]) -> Mapping[int, Sequence[int]]:
        """Frees the ids of nodes that are gone, which may come back as others."""
        for node in self._bound.keys() - set(nodes):
            self._free(node)
        return super().meet(nodes)

    @override
    def ask(self, asked: Mapping[int, Sequence[int]]) -> None:
        """These nodes' ids are their own, even if another node claimed one of them before."""
        super().ask(asked)
        for node in self.asked:
            if self._owner.get(node, node) != node:
                self._free(self._owner[node])

    @override
    def settle(self, accepted: Iterable[int], quarantined: Iterable[Rejection]) -> list[Rejection]:
        """Binds ids to the nodes whose uploads were accepted."""
        for client in accepted:
            if client in self._claimed:
                node = self._claimed[client]
                self._bound[node], self._owner[client] = client, node
        return [Rejection(self._claimed.get(client, client), reason) for client, reason in quarantined]

    def _free(self, node: int) -> None:
        del self._owner[self._bound.pop(node)]

    def _known(self, node: int) -> int:
        return self._bound.get(node, node)

    def _fault(self, node: int, said: Said) -> str | None:
        fault = super()._fault(node, said)
        if fault is None and node in self._bound:
            before, now = self._bound[node], said.client_ids[0]
            if now not in (before, node):
                return f"node was client {before} before, now claims to be {now}"
        return fault

    def _names(self, claims: Mapping[int, int]) -> tuple[dict[int, int], list[Ignored]]:
        rivals = Counter(claim for node, claim in claims.items() if node not in self._bound)
        names, ignored = {node: self._known(node) for node in claims}, []
        self._claimed = {}
        for node in claims.keys() - self._bound.keys():
            claim = claims[node]
            if claim != node and (why := self._taken(claim, rivals[claim])):
                ignored.append(Ignored(node, f"claims to be client {claim}, {why}; known by its node id"))
            else:
                names[node] = claim
                self._claimed[claim] = node
        return names, sorted(ignored)

    def _taken(self, claim: int, rivals: int) -> str | None:
        if claim in self.asked:
            return "which is another node's id"
        if claim in self._owner:
            return f"which is node {self._owner[claim]}"
        return f"as {rivals} nodes do" if rivals > 1 else None


def assign_clients(num_clients: int, nodes: Sequence[int]) -> dict[int, list[int]]:
    """Spread clients 0..num_clients-1 over the nodes in even, contiguous cohorts (nodes by ascending id)."""
    parts = np.array_split(np.arange(num_clients), min(num_clients, len(nodes)))
    return {node: part.tolist() for node, part in zip(sorted(nodes), parts, strict=False)}


def _excess(said: Said, own: set[int]) -> str:
    """What a reply has beyond one part for each client in `own`; empty if nothing."""
    named = [*said.client_ids, *(client for client, _ in said.faults if client is not None)]
    foreign = [client for client in named if client not in own]
    excess = []
    if foreign:
        more = f" and {len(foreign) - _SHOWN} more" if len(foreign) > _SHOWN else ""
        shown = ", ".join(map(str, foreign[:_SHOWN]))
        excess.append(f"speaks for clients that were not asked of it: {shown}{more}")
    if len(named) - len(foreign) > len(own.intersection(named)):
        excess.append("speaks more than once for one client")
    return " and ".join(excess)
