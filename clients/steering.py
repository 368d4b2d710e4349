"""A classifier's local training of one round, in the hands of an attack on its own client."""

from collections.abc import Iterable
from typing import Literal

import torch
from flwr.common import NDArrays
from torch.func import functional_call
from torch.nn import functional as F

from byzflower.attacks import Batch
from byzflower.clients.settings import ClientSettings
from byzflower.clients.trainer import Change, Steering, Workspace, flat, mean_gradient, train_weights


class SteeredTraining:
    """What `TrainingView` offers of a client's training: each call begins from the broadcast model.

    Attributes:
        loss: mean training loss of the last `fit`; 0 before.
    """

    def __init__(
        self,
        space: Workspace,
        model: NDArrays,
        settings: ClientSettings,
        learned: Literal["model", "gradient"],
    ) -> None:
        """Begin a round.

        Args:
            space: to train in.
            model: arrays that were broadcast.
            settings: of the local optimizer.
            learned: what training gives; see `UploadKind`.
        """
        self.loss = 0.0
        self._space, self._model, self._settings, self._learned = space, model, settings, learned
        space.load(model)
        self._names = [name for name, _ in space.model.named_parameters()]
        self._buffers = {name: buffer.clone() for name, buffer in space.model.named_buffers()}

    def fit(
        self, batches: Iterable[Batch], *, alter: Change | None = None, project: Change | None = None
    ) -> torch.Tensor:
        """Run the local optimizer, or take the mean gradient; see `Fit`."""
        space, steering = self._space, Steering(alter, project)
        space.load(self._model)
        if self._learned == "gradient":
            gradients, self.loss = mean_gradient(space, batches, self._settings, steering)
            return flat(gradients)
        start = space.row()
        self.loss = train_weights(space, batches, self._settings, steering)
        return start - space.row()

    def gradient(self, parameters: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Gradient of the cross-entropy at any parameters: (d,)."""
        (x, y), row = batch, parameters.detach().requires_grad_()
        logits = functional_call(self._space.in_training(), self._arrays(row), (x,))
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, y), row)
        return gradient

    def logits(self, parameters: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Output in evaluation mode, with the buffers that were broadcast."""
        output: torch.Tensor = functional_call(
            self._space.model.eval(), self._arrays(parameters), (features,)
        )
        return output

    def _arrays(self, row: torch.Tensor) -> dict[str, torch.Tensor]:
        """Parameters and fresh buffers, which training changes, by name."""
        fresh = {name: buffer.clone() for name, buffer in self._buffers.items()}
        return {**dict(zip(self._names, self._space.split(row), strict=True)), **fresh}
