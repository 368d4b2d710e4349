"""A federation of linear models, small enough to count by hand."""

import numpy as np
from flwr.client import NumPyClient

SIZE = 4


class Target(NumPyClient):
    """Moves the model to its own number; sends what `answer` makes of it."""

    def __init__(self, value, answer=None):
        self.value, self.answer = value, answer

    def fit(self, parameters, config):
        arrays = [np.full_like(p, self.value) for p in parameters]
        return self.answer(arrays) if self.answer else (arrays, 10, {"train-loss": float(self.value)})

    def evaluate(self, parameters, config):
        return float(np.abs(parameters[0] - self.value).mean()), 10, {"accuracy": 0.5}


def model():
    return {"w": np.zeros((2, SIZE), np.float32), "b": np.zeros(SIZE, np.float32)}
