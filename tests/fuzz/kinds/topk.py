"""Top-k uploads: a bit for each pack of parameters, the packs' values, and all buffers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..content import Payload
from ..models import Model
from .average import moved
from .base import (
    Decoded,
    Effect,
    Expected,
    Fate,
    Kind,
    Local,
    Malformed,
    any_shape,
    fate_of_row,
    names_must_be,
    values_in,
)

PACK_SIZE = 2


class TopK(Kind):
    """Sparse models; what a client does not send is an update of 0."""

    contributors = False

    def __init__(self, model: Model, arrays: Sequence[np.ndarray], config: Mapping[str, Any]) -> None:
        super().__init__(model, arrays, config)
        self.parts = -(-model.d // PACK_SIZE)

    @property
    def names(self) -> list[str]:
        """Names of the arrays, in order."""
        return ["mask", "values", *(["buffers"] if self.model.num_buffers else [])]

    def columns(self, packs: np.ndarray) -> np.ndarray:
        """(d,) bool, the columns in some packs."""
        return np.repeat(packs, PACK_SIZE)[: self.model.d]

    def encode(self, locals_: Sequence[Local], *, cohort: bool) -> dict[str, np.ndarray]:
        """See `Kind`."""
        d, dtype = self.model.d, self.model.row_dtype
        masks = np.array([local.touched for local in locals_], bool).reshape(-1, self.parts)
        with np.errstate(over="ignore", invalid="ignore"):
            rows = [self.start - local.update for local in locals_]
            values = [row[:d][self.columns(mask)] for row, mask in zip(rows, masks, strict=True)]
            buffers = np.array([row[d:] for row in rows]).reshape(len(rows), -1).astype(dtype)
            flat = np.concatenate([np.empty(0), *values]).astype(dtype)
        bits = np.packbits(masks, axis=1)
        parts = (bits, flat, buffers) if cohort else (bits[0], flat, buffers[0])
        return dict(zip(self.names, parts, strict=False))

    def decode(self, arrays: Mapping[str, Payload], k: int, *, cohort: bool) -> Decoded:
        """See `Kind`."""
        names_must_be(arrays, self.names)
        lead = (k,) if cohort else ()
        dtype = self.model.row_dtype
        bits, usual = values_in(arrays["mask"], np.dtype(np.uint8), (*lead, -(-self.parts // 8)))
        masks = np.unpackbits(bits.reshape(k, -1), axis=1).astype(bool)
        if masks[:, self.parts :].any():
            raise Malformed("bits beyond the last pack")
        masks = masks[:, : self.parts]
        sizes = [int(self.columns(mask).sum()) for mask in masks]
        values, usual_values = self._values(arrays["values"], sum(sizes))
        buffers, usual_buffers = np.empty((k, 0)), True
        if self.model.num_buffers:
            shape = (*lead, self.model.num_buffers)
            buffers, usual_buffers = values_in(arrays["buffers"], dtype, shape)
        effects = []
        parts = np.split(values, np.cumsum(sizes))
        for mask, own, rest in zip(masks, parts, buffers.reshape(k, -1), strict=False):
            effects.append(self._effect(self.columns(mask), own, rest))
        return Decoded(effects, usual and usual_values and usual_buffers)

    def _values(self, payload: Payload, count: int) -> tuple[np.ndarray, bool]:
        try:
            return values_in(payload, self.model.row_dtype, (count,))
        except Malformed:
            values, usual = any_shape(payload, np.dtype(np.float16), 1)
            if len(values) != count:
                raise
            return values, usual

    def _effect(self, sent: np.ndarray, values: np.ndarray, buffers: np.ndarray) -> Effect:
        d = self.model.d
        row = np.zeros(self.model.width)
        with np.errstate(over="ignore", invalid="ignore"):
            row[:d][sent] = self.start[:d][sent] - values
            row[d:] = self.start[d:] - buffers
            after = self.start - row
        fate, why = fate_of_row(row, d, self.model.row_dtype, after, self.model)
        if fate is Fate.ACCEPT and not sent.any():
            fate, why = Fate.EITHER, "sends no pack"
        return Effect(row, np.concatenate([sent, np.ones(len(buffers), bool)]), fate, why)

    def expected(
        self, rule: str, effects: Sequence[Effect], weights: np.ndarray, dtype: Any
    ) -> Expected | None:
        """See `Kind`."""
        return moved(rule, self.start, effects, weights, self.model, dtype, self.contributors)


class Contributors(TopK):
    """Sparse models; a pack is aggregated over the clients that sent it."""

    contributors = True
