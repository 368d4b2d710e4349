"""Top-k sparse uploads for any NumPyClient, whatever the server says about how to choose packs."""

from flwr.client import NumPyClient
from flwr.common import NDArrays, RecordDict, Scalar

from byzflower.clients.encoding import EncodingClient
from byzflower.numerics.packs import DEFAULT_PACK_SIZE
from byzflower.uploads.topk import PACK_SIZE, Importance, TopK


class TopKClient(EncodingClient):
    """Makes another NumPyClient's uploads sparse, for strategies with ``upload="topk"``.

    Training, evaluation and data are the other client's; its `fit` must return the model's arrays. The
    size of a pack is the server's to say.
    """

    def __init__(
        self,
        client: NumPyClient,
        ratio: float = 0.5,
        *,
        importance: Importance = "update",
        residual: bool = False,
        half: bool = False,
        state: RecordDict | None = None,
        client_id: int = 0,
    ) -> None:
        """Wrap a client.

        Args:
            client: trains.
            ratio: see `TopK`, as the following three.
            importance: of a pack.
            residual: error feedback.
            half: send float16.
            state: `Context.state`, where the residual lives; needed for `residual`.
            client_id: which of its node's clients it is.

        Raises:
            ValueError: an option out of its range, or `residual` without `state`.
        """
        if residual and state is None:
            raise ValueError("residual=True needs state, the Context.state that survives the rounds")
        self._choice = {"ratio": ratio, "importance": importance, "residual": residual, "half": half}
        super().__init__(client, TopK(**self._choice), state, client_id)  # type: ignore[arg-type]

    def fit(self, parameters: NDArrays, config: dict[str, Scalar]) -> tuple[NDArrays, int, dict[str, Scalar]]:
        """Train; returns mask bits, kept values and buffers."""
        size = int(config.get(PACK_SIZE, DEFAULT_PACK_SIZE))
        self.kind = TopK(**self._choice, pack_size=size)  # type: ignore[arg-type]
        return super().fit(parameters, config)
