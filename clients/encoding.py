"""Any NumPyClient's uploads, in the kind that the server asks for."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from flwr.client import NumPyClient
from flwr.common import ArrayRecord, NDArrays, RecordDict, Scalar
from numpy.typing import NDArray

from byzflower.clients.memory import keep, recall
from byzflower.flower.compat import records_of
from byzflower.uploads.dense import check_arrays
from byzflower.uploads.kind import UploadKind
from byzflower.uploads.layout import Layout


def encodes(client: NumPyClient) -> bool:
    """Whether what a client's `fit` returns is an upload already, whatever kind the server asks for."""
    return bool(getattr(client, "encodes", False))


class EncodingClient(NumPyClient):
    """Encodes what another NumPyClient learned: its trained model, or a gradient in the model's layout.

    Training, evaluation and data are the other client's.
    """

    only_reads = True
    encodes = True

    def __init__(
        self, client: NumPyClient, kind: UploadKind, state: RecordDict | None = None, client_id: int = 0
    ) -> None:
        """Wrap a client.

        Args:
            client: trains.
            kind: how it uploads.
            state: `Context.state`, where what must survive the rounds is kept.
            client_id: which of its node's clients it is.
        """
        self.client = client
        self.kind = kind
        self.state = RecordDict() if state is None else state
        self.client_id = client_id
        self.names: Sequence[str] | None = (
            None  # of the arrays it is sent; None where only their order is known
        )

    def fit(self, parameters: NDArrays, config: dict[str, Scalar]) -> tuple[NDArrays, int, dict[str, Scalar]]:
        """Train, and encode.

        Raises:
            Rejected: what the client returned does not have the model's layout.
        """
        learned, num_examples, metrics = self.client.fit(self._writable(parameters), dict(config))
        learned = [np.asarray(array) for array in learned]
        names = self.names or [str(i) for i in range(len(parameters))]
        model = Layout.of(dict(zip(names, parameters[: len(learned)], strict=False)))
        check_arrays(learned, model)
        memory = self._remembered()
        before = dict(memory)
        arrays = self.kind.encode(learned, parameters, model, memory)
        for name, value in memory.items():
            if value is not before.get(name):
                keep(self.state, name, self.client_id, value)
        return arrays, num_examples, metrics

    def evaluate(
        self, parameters: NDArrays, config: dict[str, Scalar]
    ) -> tuple[float, int, dict[str, Scalar]]:
        """Delegate."""
        loss, num_examples, metrics = self.client.evaluate(parameters, config)
        return loss, num_examples, metrics

    def _writable(self, parameters: NDArrays) -> NDArrays:
        reads = getattr(self.client, "only_reads", False)
        return parameters if reads else [np.array(array) for array in parameters]

    def _remembered(self) -> dict[str, NDArray[Any]]:
        names = records_of(self.state, ArrayRecord)
        found = {name: recall(self.state, name, self.client_id) for name in names}
        return {name: value for name, value in found.items() if value is not None}


def encoding(
    client: NumPyClient, kind: UploadKind, names: Sequence[str], state: RecordDict, client_id: int
) -> NumPyClient:
    """The client itself if it encodes what it learned, else one that does it for it.

    Args:
        client: trains.
        kind: of upload that the server asks for.
        names: of the arrays that it is sent.
        state: of its node.
        client_id: which of the node's clients it is.
    """
    made = client if encodes(client) else EncodingClient(client, kind, state, client_id)
    if isinstance(made, EncodingClient):
        made.names = names
    return made
