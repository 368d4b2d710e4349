"""A benign client."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from flwr.client import NumPyClient
from flwr.common import NDArrays, RecordDict, Scalar
from numpy.typing import NDArray

from byzflower.clients import trainer
from byzflower.clients.data import training_data
from byzflower.clients.memory import keep, recall
from byzflower.clients.settings import ClientSettings
from byzflower.numerics.randomness import numpy_generator
from byzflower.numerics.threads import one_thread
from byzflower.uploads.base import CLIENT_ID
from byzflower.uploads.kind import UploadKind
from byzflower.uploads.layout import Layout
from byzflower.uploads.registry import upload_kind

_MOMENTUM = "local-momentum"


class BenignClient(NumPyClient):
    """Trains the global model on its own data, or takes a gradient of it, as the kind of upload needs.

    ``config["upload"]`` says which ("weights" by default); encoding it is for `EncodingClient`. Whatever must
    survive a round, i.e. the local momentum, lives in `state`, which Flower keeps for the node.
    """

    only_reads = True  # `fit` does not write to the arrays it is given

    def __init__(self, client_id: int, settings: ClientSettings, state: RecordDict | None = None):
        """Make the client.

        Args:
            client_id: logical id in [0, settings.clients).
            settings: data, model and training.
            state: `Context.state` of the node that hosts it.
        """
        if not 0 <= client_id < settings.clients:
            raise ValueError(f"client id {client_id} is not in [0, {settings.clients})")
        self.client_id = client_id
        self.settings = settings
        self.state = RecordDict() if state is None else state
        dataset, parts = training_data(settings)
        self.dataset = dataset
        self.indices = parts[client_id]
        self.device = "cuda" if torch.cuda.is_available() else "cpu"

    def fit(self, parameters: NDArrays, config: dict[str, Scalar]) -> tuple[NDArrays, int, dict[str, Scalar]]:
        """Train on the broadcast model for one round."""
        started = time.perf_counter()
        server_round = int(config["server-round"])
        with one_thread():
            arrays, loss = self._learn(parameters, server_round, upload_kind(config))
        metrics: dict[str, Scalar] = {
            CLIENT_ID: self.client_id,
            "train-loss": loss,
            "train-seconds": time.perf_counter() - started,
        }
        return arrays, len(self.indices), metrics

    def evaluate(
        self, parameters: NDArrays, config: dict[str, Scalar]
    ) -> tuple[float, int, dict[str, Scalar]]:
        """Score the broadcast model on the client's own training samples."""
        space = self._space()
        space.load(parameters)
        x, y = self.dataset.train(self.indices)
        with one_thread():
            scores = trainer.evaluate(space.model, x.to(self.device), y.to(self.device))
        loss = scores.pop("loss")
        return loss, len(self.indices), {CLIENT_ID: self.client_id, **scores}

    # -- what a Byzantine client changes -----------------------------------------------------------

    def poison(self, batch: trainer.Batch, server_round: int) -> trainer.Batch:
        """Change a training batch; a benign client does not."""
        return batch

    def corrupt(
        self, gradient: NDArray[Any], state: NDArray[Any], layout: Layout, server_round: int
    ) -> NDArray[Any]:
        """Change the (d,) pseudo-gradient to upload; a benign client does not.

        Args:
            gradient: what a benign client would upload, or step by.
            state: (1 + slots, d) the model that was broadcast, and the moments that came with it.
            layout: of the model.
            server_round: server round.
        """
        return gradient

    def corrupts(self, server_round: int) -> bool:
        """Whether `corrupt` does anything this round."""
        return False

    # -- local work --------------------------------------------------------------------------------

    def _learn(self, parameters: NDArrays, server_round: int, kind: UploadKind) -> tuple[NDArrays, float]:
        """What this kind of upload is made of: the trained model, or a gradient at the one that came."""
        space = self._space()
        layout = space.layout
        sent = kind.state(layout, parameters) if self.corrupts(server_round) else None
        model = parameters[: len(layout.names)]
        space.load(model)
        batches = self._batches(server_round)
        if kind.learned == "model":
            loss = trainer.train_weights(space, batches, self.settings)
            trained = space.arrays()
            if not self.settings.local_momentum and sent is None:
                return trained, loss
            before = layout.row(model)
            row = before - layout.row(trained)
            return layout.arrays(before - self._altered(row, sent, layout, server_round)), loss
        gradients, loss = trainer.mean_gradient(space, batches, self.settings)
        row = np.empty(layout.width, layout.row_dtype)
        row[: layout.d] = trainer.gradient_row(gradients, layout)
        row[layout.d :] = self._buffers(space, model, kind)
        return layout.arrays(self._altered(row, sent, layout, server_round)), loss

    def _buffers(self, space: trainer.Workspace, model: NDArrays, kind: UploadKind) -> NDArray[Any]:
        """What is uploaded of batch norm's statistics, which training has updated: (num_buffers,)."""
        layout = space.layout
        if not layout.num_buffers:
            return np.empty(0, layout.row_dtype)
        after = layout.row(space.arrays())
        return (after if kind.own_buffers else layout.row(model) - after)[layout.d :]

    def _altered(
        self, row: NDArray[Any], sent: NDArray[Any] | None, layout: Layout, server_round: int
    ) -> NDArray[Any]:
        """Apply local momentum and the attack to the parameters' part of a row, in place."""
        gradient = row[: layout.d]
        if self.settings.local_momentum:
            self._add_momentum(gradient)
        if sent is not None:
            gradient[:] = self.corrupt(gradient, sent, layout, server_round)
        return row

    def _add_momentum(self, gradient: NDArray[Any]) -> None:
        """Make g into m = (1 - beta) g + beta m (ROP, Algorithm 1); the node keeps m, which starts at 0."""
        beta = self.settings.local_momentum
        gradient *= gradient.dtype.type(1 - beta)
        before = recall(self.state, _MOMENTUM, self.client_id)
        if before is not None:
            gradient += before * gradient.dtype.type(beta)
        keep(self.state, _MOMENTUM, self.client_id, gradient.copy())

    def _space(self) -> trainer.Workspace:
        return trainer.workspace(
            self.settings.model,
            self.dataset.input_shape,
            self.dataset.num_classes,
            self.device,
            self.settings.model_options,
        )

    def _batches(self, server_round: int) -> Iterator[trainer.Batch]:
        random = numpy_generator(self.settings.seed, "batches", server_round, self.client_id)
        for positions in trainer.batch_indices(len(self.indices), self.settings, random):
            x, y = self.poison(self.dataset.train(self.indices[positions]), server_round)
            yield x.to(self.device), y.to(self.device)
