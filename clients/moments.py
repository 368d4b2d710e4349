"""Clients of strategies that keep the optimizer's moments: one step each round, from the server's moments."""

from collections.abc import Callable

import torch
from flwr.client import NumPyClient
from flwr.common import NDArrays, Scalar

from byzflower.clients.trainer import Workspace, gradient_row
from byzflower.uploads.moments import Moments


class MomentsClient(NumPyClient):
    """Takes one step of the server's optimizer on its own loss: for any torch model, in any Flower project.

    Use it with a strategy that keeps the moments (`byzflower.strategies.ARFRS` and its siblings), which
    also decides on the optimizer: Adam, SGD with momentum, AdaGrad or RMSProp.
    """

    only_reads = True  # `fit` does not write to the arrays it is given
    encodes = True

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
        self.compact = compact

    def fit(self, parameters: NDArrays, config: dict[str, Scalar]) -> tuple[NDArrays, int, dict[str, Scalar]]:
        """Take one step on what was broadcast.

        Raises:
            ValueError: the server keeps no moments, or not of this model.
        """
        space, kind = self.space, Moments.from_config(config)
        kind.state(space.layout, parameters)  # or this is another model
        space.load(parameters[: len(space.layout.names)])
        loss = self.loss(space.in_training())
        slopes = torch.autograd.grad(loss, space.parameters, allow_unused=True, materialize_grads=True)
        row = space.layout.row(space.arrays())  # of which the buffers are sent as they are
        row[: space.layout.d] = gradient_row(slopes, space.layout)
        arrays = kind.encode(space.layout.arrays(row), parameters, space.layout, {})
        if self.compact:
            arrays = kind.compact(arrays, parameters, space.layout)
        return arrays, self.num_examples, {"train-loss": float(loss.detach())}
