"""Evaluation of the global model on the server."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray

from byzflower.clients import trainer
from byzflower.datasets import Dataset


class ServerEvaluation:
    """Scores global models on the test set."""

    def __init__(
        self,
        dataset: Dataset,
        model: str,
        device: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Load the test set and an instance of the model.

        Args:
            dataset: whose test set to use.
            model: name of the model.
            device: "cpu" or "cuda"; default CUDA where there is one.
            options: the model's own parameters.
        """
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        x, y = dataset.test()
        self._x, self._y = x.to(self.device), y.to(self.device)
        self._space = trainer.workspace(model, dataset.input_shape, dataset.num_classes, self.device, options)

    def __call__(self, arrays: Sequence[NDArray[Any]]) -> dict[str, float]:
        """Return loss, top-1 ("accuracy") and top-5 accuracy in [0, 1] of a model's arrays."""
        self._space.load(arrays)
        return trainer.evaluate(self._space.model, self._x, self._y)
