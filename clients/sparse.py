"""Top-k sparse uploads for any NumPyClient."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from flwr.client import NumPyClient
from flwr.common import NDArrays, RecordDict, Scalar
from numpy.typing import NDArray

from byzflower.clients.memory import keep, recall
from byzflower.numerics.packs import DEFAULT_PACK_SIZE, Packs
from byzflower.uploads.dense import DenseUpload
from byzflower.uploads.layout import Layout
from byzflower.uploads.topk import PACK_SIZE, SparseModel

Importance = Literal["update", "parameter"]
_RESIDUAL = "topk-residual"


@dataclass(frozen=True)
class TopK:
    """How a client makes its upload sparse.

    Attributes:
        ratio: share of the packs to keep, in (0, 1]: the ceil(ratio P) most important ones.
        importance: a pack's L1 norm in the client's update w_i - w_G ("update") or in its parameters
            w_i ("parameter").
        residual: error feedback: add what was not sent (or was rounded) to the next round's update.
        half: send float16 instead of the model's own precision.
    """

    ratio: float = 0.5
    importance: Importance = "update"
    residual: bool = False
    half: bool = False

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: one of them out of its range.
        """
        if not 0 < self.ratio <= 1:
            raise ValueError(f"ratio must be in (0, 1], got {self.ratio}")
        if self.importance not in ("update", "parameter"):
            raise ValueError(f"importance must be update or parameter, got {self.importance!r}")


def sparsify(
    trained: NDArray[Any], sent: NDArray[Any], layout: Layout, pack_size: int, options: TopK
) -> SparseModel:
    """Keep the most important packs of a trained model.

    Args:
        trained: (width,) row of the model to upload.
        sent: (width,) row of the global model.
        layout: of both rows.
        pack_size: scalars in a pack.
        options: which packs, and how.
    """
    d, packs = layout.d, Packs(layout.d, pack_size)
    values = trained[:d]
    importance = packs.importance(values - sent[:d] if options.importance == "update" else values)
    mask = packs.largest(importance, packs.quota(options.ratio))
    kept = values[packs.columns(mask)]
    with np.errstate(over="ignore"):
        return SparseModel(mask, kept.astype(np.float16) if options.half else kept, trained[d:].copy())


class TopKClient(NumPyClient):
    """Makes another NumPyClient's uploads sparse, for strategies with ``upload="topk"``.

    Training, evaluation and data are the other client's; its `fit` must return the model's arrays.
    """

    only_reads = True

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
            ratio: share of the packs to keep, in (0, 1]: the ceil(ratio P) most important ones.
            importance: of a pack: its L1 norm in the update ("update") or in the parameters.
            residual: error feedback: add what was not sent to the next round's update.
            half: send float16. Updates smaller than a 2000th of their parameter lose their sign.
            state: `Context.state`, where the residual lives; needed for `residual`.
            client_id: which of its node's clients it is.

        Raises:
            ValueError: an option out of its range, or `residual` without `state`.
        """
        if residual and state is None:
            raise ValueError("residual=True needs state, the Context.state that survives the rounds")
        self.client = client
        self.options = TopK(ratio, importance, residual, half)
        self.state = RecordDict() if state is None else state
        self.client_id = client_id

    def fit(self, parameters: NDArrays, config: dict[str, Scalar]) -> tuple[NDArrays, int, dict[str, Scalar]]:
        """Train; returns mask bits, kept values and buffers, as Flower's legacy strategies exchange them."""
        layout = Layout.of_list(parameters)
        model, num_examples, metrics = self.fit_sparse(layout, parameters, config)
        return model.arrays(layout), num_examples, metrics

    def fit_sparse(
        self, layout: Layout, parameters: NDArrays, config: Mapping[str, Scalar]
    ) -> tuple[SparseModel, int, dict[str, Scalar]]:
        """Train and choose what to upload.

        Args:
            layout: of the model.
            parameters: the global model.
            config: of the round; "pack-size" is the server's choice.

        Raises:
            Rejected: what the client returned is not the model.
        """
        writable = parameters if getattr(self.client, "only_reads", False) else [p.copy() for p in parameters]
        arrays, num_examples, metrics = self.client.fit(writable, {**config, "upload": "weights"})
        DenseUpload.check_arrays(arrays, layout)
        trained, sent = layout.row(arrays), layout.row(parameters)
        pack_size = int(config.get(PACK_SIZE, DEFAULT_PACK_SIZE))
        if self.options.residual:
            model = self._with_residual(trained, sent, layout, pack_size)
        else:
            model = sparsify(trained, sent, layout, pack_size, self.options)
        return model, num_examples, metrics

    def evaluate(
        self, parameters: NDArrays, config: dict[str, Scalar]
    ) -> tuple[float, int, dict[str, Scalar]]:
        """Delegate."""
        loss, num_examples, metrics = self.client.evaluate(parameters, config)
        return loss, num_examples, metrics

    def _with_residual(
        self, trained: NDArray[Any], sent: NDArray[Any], layout: Layout, pack_size: int
    ) -> SparseModel:
        own, base = trained[: layout.d], sent[: layout.d]
        before = recall(self.state, _RESIDUAL, self.client_id)
        if before is not None:
            own += before
        model = sparsify(trained, sent, layout, pack_size, self.options)
        residual = own - base
        columns = Packs(layout.d, pack_size).columns(model.mask)
        residual[columns] = own[columns] - model.values
        keep(self.state, _RESIDUAL, self.client_id, residual)
        return model
