"""Dense uploads: all of a model, or of its gradient."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..content import Payload
from ..models import Model
from .average import moved
from .base import Decoded, Effect, Expected, Kind, Local, fate_of_row, names_must_be, values_in


class Dense(Kind):
    """Weights, or with `gradient` set gradients: the model's arrays, or a cohort's matrix "rows"."""

    gradient = False

    def __init__(self, model: Model, arrays: Sequence[np.ndarray], config: Mapping[str, Any]) -> None:
        super().__init__(model, arrays, config)
        self.parts = 1

    def sent_row(self, local: Local) -> np.ndarray:
        """What a benign client sends: (width,), rounded as its arrays are."""
        with np.errstate(over="ignore", invalid="ignore"):
            return local.update if self.gradient else self.start - local.update

    def encode(self, locals_: Sequence[Local], *, cohort: bool) -> dict[str, np.ndarray]:
        """See `Kind`."""
        models = [self.model.arrays(self.sent_row(local)) for local in locals_]
        if not cohort:
            return dict(zip(self.model.names, models[0], strict=True))
        rows = np.array([self.model.row(m) for m in models]).reshape(-1, self.model.width)
        with np.errstate(over="ignore"):
            return {"rows": rows.astype(self.model.row_dtype)}

    def decode(self, arrays: Mapping[str, Payload], k: int, *, cohort: bool) -> Decoded:
        """See `Kind`."""
        model = self.model
        if cohort:
            names_must_be(arrays, ["rows"])
            rows, certain = values_in(arrays["rows"], model.row_dtype, (k, model.width))
            return Decoded([self.effect(row.astype(np.float64)) for row in rows], certain)
        names_must_be(arrays, model.names)
        read = [
            values_in(payload, dtype, shape)
            for payload, dtype, shape in zip(arrays.values(), model.dtypes, model.shapes, strict=True)
        ]
        row = model.row([array for array, _ in read])
        return Decoded([self.effect(row)], all(usual for _, usual in read))

    def effect(self, row: np.ndarray) -> Effect:
        """What one client's model or gradient means."""
        with np.errstate(over="ignore", invalid="ignore"):
            step = row if self.gradient else self.start - row
            after = self.start - step
        fate = fate_of_row(step, self.model.d, self.model.row_dtype, after, self.model)
        return Effect(step, np.ones(len(row), bool), *fate)

    def expected(
        self, rule: str, effects: Sequence[Effect], weights: np.ndarray, dtype: Any
    ) -> Expected | None:
        """See `Kind`."""
        return moved(rule, self.start, effects, weights, self.model, dtype)


class Gradient(Dense):
    """Gradients."""

    gradient = True
