"""A NumPyClient for Flower's legacy strategies, fit to run on several threads of one process."""

from typing import Any

from flwr.client import Client, NumPyClient
from flwr.common import (
    Code,
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    GetParametersIns,
    GetParametersRes,
    GetPropertiesIns,
    GetPropertiesRes,
    Parameters,
    RecordDict,
    Status,
    ndarrays_to_parameters,
)
from numpy.typing import NDArray

from byzflower.clients.encoding import encoding
from byzflower.flower.compat import npy_view
from byzflower.uploads.registry import upload_kind

_OK = Status(Code.OK, "Success")


class LegacyClient(Client):
    """Answers as ``NumPyClient.to_client()`` would.

    Flower's own wrapper reads arrays with ``np.load``, which parses their headers with Python's ``ast``
    module; in CPython 3.11 and 3.12 that fails now and then where several threads do it at once ("AST
    constructor recursion depth mismatch"), and a client is lost for a round. Here nothing is parsed so.
    """

    def __init__(self, client: NumPyClient, state: RecordDict | None = None, client_id: int = 0) -> None:
        """Wrap a client.

        Args:
            client: what trains and evaluates.
            state: `Context.state` of its node.
            client_id: which of its node's clients it is.
        """
        self._client = client
        self._state = RecordDict() if state is None else state
        self._client_id = client_id
        self._flowers = client.to_client()  # for what carries no arrays in

    def get_properties(self, ins: GetPropertiesIns) -> GetPropertiesRes:
        """Pass on the client's properties."""
        return self._flowers.get_properties(ins)

    def get_parameters(self, ins: GetParametersIns) -> GetParametersRes:
        """Pass on the client's parameters."""
        return self._flowers.get_parameters(ins)

    def fit(self, ins: FitIns) -> FitRes:
        """Train; a client that cannot says so in the status."""
        if type(self._client).fit is NumPyClient.fit:
            return super().fit(ins)
        parameters, kind = _arrays(ins.parameters), upload_kind(ins.config)
        names = [str(i) for i in range(len(parameters))]
        client = encoding(self._client, kind, names, self._state, self._client_id)
        arrays, num_examples, metrics = client.fit(parameters, ins.config)
        _expect("fit", (arrays, list), (num_examples, int), (metrics, dict))
        return FitRes(_OK, ndarrays_to_parameters(arrays), num_examples, metrics)

    def evaluate(self, ins: EvaluateIns) -> EvaluateRes:
        """Evaluate; a client that cannot says so in the status."""
        if type(self._client).evaluate is NumPyClient.evaluate:
            return super().evaluate(ins)
        loss, num_examples, metrics = self._client.evaluate(_arrays(ins.parameters), ins.config)
        _expect("evaluate", (loss, float), (num_examples, int), (metrics, dict))
        return EvaluateRes(_OK, loss, num_examples, metrics)


def _expect(method: str, *parts: tuple[object, type]) -> None:
    if not all(isinstance(part, kind) for part, kind in parts):
        kinds = ", ".join(kind.__name__ for _, kind in parts)
        got = ", ".join(type(part).__name__ for part, _ in parts)
        raise TypeError(f"{method} must return {kinds}, got {got}")


def _arrays(parameters: Parameters) -> list[NDArray[Any]]:
    return [npy_view(tensor).copy() for tensor in parameters.tensors]
