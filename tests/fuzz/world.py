"""The federation of a case: its nodes, what benign ones send, and what becomes of it on the way."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import numpy as np
from flwr.common import Message

from . import mutations, wire
from .cases import Case, Mutation
from .content import ARRAYS, METRICS, Record, Reply, payload_of
from .kinds import Kind, Local
from .models import MODELS, Model

MAX_NODES, MAX_CLIENTS, MAX_ROUNDS = 19, 20, 3


def node_ids(case: Case) -> list[int]:
    """Ids of the nodes, and of the stranger: any 64-bit numbers, as Flower draws them, or 101, 102, 103.

    None is an id that a benign client names: which of the two would be meant could not be told.
    """
    if not case.large_ids:
        return [*range(101, case.nodes + 101), 999]
    random = Random(case.seed)
    return [random.getrandbits(64) for _ in range(case.nodes)] + [2**64 - 5]


class FewNodes:
    """As much of a Flower Grid as a strategy needs to find its nodes."""

    def __init__(self, nodes: Sequence[int]) -> None:
        self.nodes = list(nodes)

    def get_node_ids(self) -> list[int]:
        """The ids."""
        return self.nodes


class World:
    """Everything random about a case, drawn once, so that leaving a node or a round out changes no other.

    Attributes:
        ids: of the nodes; the last is the stranger's.
        model: the model.
        arrays: its first values.
        updates: (rounds, clients, width) what benign clients train.
        touched: (rounds, clients, 20) which parts they send.
        sizes: (clients,) their numbers of examples.
    """

    def __init__(self, case: Case) -> None:
        self.case, self.ids, self.model = case, node_ids(case), MODELS[case.model]
        random = np.random.default_rng(case.seed)
        shape = (MAX_ROUNDS, MAX_CLIENTS, self.model.width)
        self.arrays = first_arrays(self.model, random.standard_normal(self.model.width))
        self.updates = 0.3 + 0.1 * random.standard_normal(shape)
        self.touched = random.random((MAX_ROUNDS, MAX_CLIENTS, 20)) < 0.7
        self.touched[..., 0] = True
        self.sizes = random.integers(1, 50, MAX_CLIENTS)
        self.random = Random(case.seed)

    def local(self, server_round: int, client: int, parts: int) -> Local:
        """What a benign client trains."""
        at = server_round - 1, client % MAX_CLIENTS
        return Local(self.updates[at].copy(), self.touched[at][:parts].copy())

    def answer(
        self, server_round: int, place: int, kind: Kind, asked: Sequence[int], edits: Sequence[Mutation]
    ) -> Reply:
        """What a node answers.

        Args:
            server_round: from 1.
            place: of the node; `case.nodes` is the stranger's.
            kind: of the uploads, in this round.
            asked: ids of the clients that it hosts and was asked for; nothing where it is one client.
            edits: what it does otherwise.
        """
        clients = list(asked) or [place]
        locals_ = [self.local(server_round, client, kind.parts) for client in clients]
        for edit in edits:
            if edit.what in mutations.TRAINING:
                mutations.TRAINING[edit.what](locals_, **edit.args)
        reply = self._reply(place, kind, locals_, clients, cohort=bool(asked))
        for edit in edits:
            if edit.what in mutations.EDITS:
                mutations.EDITS[edit.what](reply, **edit.args)
        return reply

    def _reply(
        self, place: int, kind: Kind, locals_: Sequence[Local], clients: list[int], *, cohort: bool
    ) -> Reply:
        arrays = kind.encode(locals_, cohort=cohort)
        sizes = [int(self.sizes[client % MAX_CLIENTS]) for client in clients]
        numbers: list[tuple[str, Any]] = [("loss", [0.5] * len(clients) if cohort else 0.5)]
        numbers.append((mutations.SIZE, [float(s) for s in sizes] if cohort else sizes[0]))
        if cohort:
            numbers.append((mutations.ID, clients))
        elif self.case.named:
            numbers.append((mutations.ID, place))
        record = Record("arrays", ARRAYS, [(name, payload_of(array)) for name, array in arrays.items()])
        return Reply(self.ids[place], [record, Record("metrics", METRICS, numbers)])

    def deliver(self, replies: Sequence[Reply]) -> tuple[list[Message], list[Reply]]:
        """Send replies through Flower's serialisation, in any order.

        Returns:
            The messages that the server gets, and what is in them, one for one.
        """
        messages: list[Message] = []
        contents: list[Reply] = []
        for reply in self.random.sample(replies, len(replies)):
            if not reply.copies:
                continue
            data = wire.encode(reply)
            for _ in range(reply.copies):
                message = wire.decode(data, reply.node)
                content = wire.read(data, reply.node) if reply.edits else reply
                if message.has_error() and content.error is None:  # Flower cannot rebuild it
                    content = Reply(reply.node, error=(204, "not a message"))
                messages.append(message)
                contents.append(content)
        return messages, contents


def first_arrays(model: Model, values: np.ndarray) -> list[np.ndarray]:
    """A model to begin with; its buffers are positive."""
    row = values.copy()
    row[model.d :] = 1 + np.abs(row[model.d :])
    return model.arrays(row)


def by_node(mutations_: Sequence[Mutation], server_round: int) -> Mapping[int, list[Mutation]]:
    """A round's mutations, of each node in their order."""
    found: dict[int, list[Mutation]] = {}
    for mutation in mutations_:
        if mutation.round == server_round:
            found.setdefault(mutation.node, []).append(mutation)
    return found
