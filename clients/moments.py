"""Clients of strategies that keep the optimizer's moments: one step each round, from the server's moments."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from flwr.client import NumPyClient
from flwr.common import NDArrays, Scalar
from numpy.typing import NDArray

from byzflower.clients.trainer import Workspace, gradient_row
from byzflower.uploads.layout import Layout
from byzflower.uploads.moments import COMPACT, MomentsLayout, MomentsUpload
from byzflower.uploads.optimizers import OPTIMIZER, Optimizer


class Broadcast(NamedTuple):
    """What the server sent: where every client's step begins.

    Attributes:
        layout: of the model and its moments.
        row: the arrays, flat (see `MomentsLayout.full`).
        optimizer: whose step to take.
        t: number of the step, from 1.
    """

    layout: MomentsLayout
    row: NDArray[Any]
    optimizer: Optimizer
    t: int

    @classmethod
    def read(
        cls, model: Layout, parameters: Sequence[NDArray[Any]], config: Mapping[str, Scalar]
    ) -> "Broadcast":
        """Read the arrays and the config that a client was sent.

        Args:
            model: layout of the model, as the client knows it.
            parameters: what arrived.
            config: what came with it.

        Raises:
            ValueError: the server keeps no moments, or not this model's.
        """
        if OPTIMIZER not in config:
            raise ValueError("the server keeps no moments: its strategy must be ARFRS or one of its siblings")
        optimizer, t = Optimizer.from_config(config)
        layout = MomentsLayout(model, optimizer.slots)
        if tuple(a.shape for a in parameters) != layout.full.shapes:
            raise ValueError("the arrays that were broadcast are not this model's and its moments")
        return cls(layout, layout.full.row(parameters), optimizer, t)

    @property
    def state(self) -> torch.Tensor:
        """(depth, d) parameters and moments."""
        return torch.from_numpy(self.layout.state(self.row))

    def stepped(self, gradient: NDArray[Any], buffers: NDArray[Any]) -> NDArrays:
        """What a client uploads: the arrays after a step by its (d,) gradient, with its own buffers."""
        state = self.optimizer.step(self.state, torch.from_numpy(gradient), self.t).numpy()
        return self.layout.full.arrays(np.concatenate([state.reshape(-1), buffers]))

    def compact(self, arrays: Sequence[NDArray[Any]]) -> NDArrays:
        """The same as `stepped` gave, without the rows that a gradient of 0 explains."""
        full = self.layout.full
        named = dict(zip(full.names, arrays, strict=True))
        upload = MomentsUpload.from_payload(named, full, [0], np.ones(1), [{}], cohort=False)
        rest = self.optimizer.step(self.state, torch.zeros(()), self.t).numpy()
        payload = upload.without_untouched(rest, self.layout).payload(full, cohort=False)
        return [payload[name] for name in COMPACT]


class MomentsClient(NumPyClient):
    """Takes one step of the server's optimizer on its own loss: for any torch model, in any Flower project.

    Use it with a strategy that keeps the moments (`byzflower.strategies.ARFRS` and its siblings), which
    also decides on the optimizer: Adam, SGD with momentum, AdaGrad or RMSProp.
    """

    only_reads = True  # `fit` does not write to the arrays it is given

    def __init__(
        self,
        model: torch.nn.Module,
        loss: Callable[[torch.nn.Module], torch.Tensor],
        num_examples: int,
        *,
        compact: bool = False,
    ) -> None:
        """Make the client.

        Args:
            model: of the server's architecture; its weights are overwritten.
            loss: the client's loss, a scalar, of a model; called once a round.
            num_examples: how many examples it is of: the client's weight.
            compact: upload touched rows only, for models with embedding tables.
        """
        self.space = Workspace(model)
        self.loss = loss
        self.num_examples = num_examples
        self.array_names = COMPACT if compact else None

    def fit(self, parameters: NDArrays, config: dict[str, Scalar]) -> tuple[NDArrays, int, dict[str, Scalar]]:
        """Take one step on what was broadcast.

        Raises:
            ValueError: the server keeps no moments, or not of this model.
        """
        space = self.space
        broadcast = Broadcast.read(space.layout, parameters, config)
        space.load(parameters[: len(space.layout.names)])
        loss = self.loss(space.in_training())
        slopes = torch.autograd.grad(loss, space.parameters, allow_unused=True, materialize_grads=True)
        buffers = space.layout.row(space.arrays())[space.layout.d :]
        arrays = broadcast.stepped(gradient_row(slopes, space.layout), buffers)
        if self.array_names:
            arrays = broadcast.compact(arrays)
        return arrays, self.num_examples, {"train-loss": float(loss.detach())}
