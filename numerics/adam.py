"""Adam on some of the coordinates."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class AdamState(NamedTuple):
    """Adam (Kingma and Ba, 2015) that leaves untouched coordinates, and their counts of steps, alone.

    Attributes:
        first: (width,) first moments; empty before the first step.
        second: (width,) second moments.
        steps: (width,) how often each coordinate stepped.
    """

    first: NDArray[np.float32] = np.empty(0, np.float32)
    second: NDArray[np.float32] = np.empty(0, np.float32)
    steps: NDArray[np.float32] = np.empty(0, np.float32)

    def direction(
        self,
        gradient: NDArray[np.float32],
        touched: NDArray[np.bool_],
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
    ) -> "tuple[NDArray[np.float32], AdamState]":
        """Direction of the update, (width,), 0 where nothing was touched, and the state after it."""
        old = self if len(self.first) else AdamState(*(np.zeros_like(gradient) for _ in self))
        first, second, steps = (moment.copy() for moment in old)
        g = gradient[touched]
        steps[touched] += 1
        first[touched] = beta1 * first[touched] + (1 - beta1) * g
        second[touched] = beta2 * second[touched] + (1 - beta2) * g * g
        mean = first[touched] / (1 - beta1 ** steps[touched])
        square = second[touched] / (1 - beta2 ** steps[touched])
        step = np.zeros_like(gradient)
        step[touched] = mean / (np.sqrt(square) + eps)
        return step, AdamState(first, second, steps)
