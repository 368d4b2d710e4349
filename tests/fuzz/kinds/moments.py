"""Moments uploads: parameters and the optimizer's moments after one step, of the touched rows or of all."""

import itertools
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ..content import Payload
from ..models import Model
from .base import (
    Decoded,
    Effect,
    Expected,
    Fate,
    Kind,
    Local,
    Malformed,
    any_shape,
    names_must_be,
    values_in,
)
from .optimizers import SLOTS, disobedience, step

_COMPACT = ["touched", "splits", "values", "buffers"]
_I4, _I8 = np.dtype(np.int32), np.dtype(np.int64)
# Benign rounding stays far below; what is above breaks the rule however roundings are counted.
_GROSS = 1000.0


class Moments(Kind):
    """The compact form: touched rows (slices of tables, whole vectors), numbered through the model."""

    def __init__(self, model: Model, arrays: Sequence[np.ndarray], config: Mapping[str, Any]) -> None:
        super().__init__(model, arrays, config)
        slots = SLOTS[config["optimizer"]]
        own = list(zip(model.names, model.shapes, model.dtypes, strict=True))
        trained = [array for array, buffer in zip(own, model.buffer, strict=True) if not buffer]
        self.broadcast = Model(
            *((name, shape, dtype.str) for name, shape, dtype in own),
            *(
                (f"moments/{slot}/{name}", shape, dtype.str)
                for slot in slots
                for name, shape, dtype in trained
            ),
        )
        self.depth = 1 + len(slots)
        row = self.broadcast.row(arrays)
        self.state = row[: self.depth * model.d].reshape(self.depth, model.d)
        self.counts = [shape[0] if len(shape) > 1 else 1 for _, shape, _ in trained]
        self.widths = np.repeat(
            [int(np.prod(shape)) // n for (_, shape, _), n in zip(trained, self.counts, strict=True)],
            self.counts,
        )
        self.parts = len(self.widths)

    @cached_property
    def rest(self) -> np.ndarray:
        """(depth, d) float64, the state of a client that touched nothing."""
        return self.trained(np.zeros(self.model.d)).astype(np.float64)

    @cached_property
    def precision(self) -> float:
        """Of the coarsest array: in the full form, a value is rounded to its own array's."""
        own = zip(self.model.dtypes, self.model.buffer, strict=True)
        return max(float(np.finfo(dtype).eps) for dtype, buffer in own if not buffer)

    def trained(self, gradient: np.ndarray) -> np.ndarray:
        """(depth, d) state after a step, in the uploads' precision."""
        with np.errstate(over="ignore"):
            return step(self.config, self.state.astype(self.model.row_dtype), gradient[: self.model.d])

    def columns(self, rows: np.ndarray) -> np.ndarray:
        """Columns of some rows, one row after the other."""
        starts = np.concatenate([[0], np.cumsum(self.widths)])
        parts = [np.arange(starts[row], starts[row + 1]) for row in rows]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def encode(self, locals_: Sequence[Local], *, cohort: bool) -> dict[str, np.ndarray]:
        """See `Kind`."""
        d, dtype = self.model.d, self.model.row_dtype
        rows = [np.flatnonzero(local.touched) for local in locals_]
        values = [
            self.trained(local.update)[:, self.columns(own)] for local, own in zip(locals_, rows, strict=True)
        ]
        with np.errstate(over="ignore"):
            buffers = np.array([(self.start - local.update)[d:] for local in locals_]).astype(dtype)
        return {
            "touched": np.concatenate([np.empty(0), *rows]).astype(_I4),
            "splits": np.cumsum([0, *map(len, rows)]).astype(_I8),
            "values": np.concatenate([np.empty((self.depth, 0), dtype), *values], axis=1),
            "buffers": buffers.reshape(len(locals_), -1),
        }

    def decode(self, arrays: Mapping[str, Payload], k: int, *, cohort: bool) -> Decoded:
        """See `Kind`; either form is understood."""
        if list(arrays) == _COMPACT:
            return self._decode_compact(arrays, k)
        model, d = self.broadcast, self.model.d
        if cohort:
            names_must_be(arrays, ["rows"])
            rows, certain = values_in(arrays["rows"], model.row_dtype, (k, model.width))
        else:
            names_must_be(arrays, model.names)
            read = [
                values_in(payload, dtype, shape)
                for payload, dtype, shape in zip(arrays.values(), model.dtypes, model.shapes, strict=True)
            ]
            rows, certain = model.row([array for array, _ in read])[None], all(usual for _, usual in read)
        size = self.depth * d
        effects = [
            self._effect(np.ones(d, bool), row[:size].reshape(self.depth, d), row[size:])
            for row in rows.astype(np.float64)
        ]
        return Decoded(effects, certain)

    def _decode_compact(self, arrays: Mapping[str, Payload], k: int) -> Decoded:
        dtype = self.model.row_dtype
        touched, a = any_shape(arrays["touched"], _I4, 1)
        splits, b = values_in(arrays["splits"], _I8, (k + 1,))
        if splits[0] != 0 or splits[-1] != len(touched) or (np.diff(splits) < 0).any():
            raise Malformed("splits do not divide the touched rows")
        owns = [touched[i:j].astype(np.int64) for i, j in itertools.pairwise(splits)]
        for own in owns:
            if (np.diff(own) <= 0).any() or ((own < 0) | (own >= self.parts)).any():
                raise Malformed("touched rows out of range, or not ascending, each once")
        columns = [self.columns(own) for own in owns]
        values, c = values_in(arrays["values"], dtype, (self.depth, sum(map(len, columns))))
        buffers, e = values_in(arrays["buffers"], dtype, (k, self.model.num_buffers))
        effects, at = [], 0
        for own, rest in zip(columns, buffers.astype(np.float64), strict=True):
            sent, state = np.zeros(self.model.d, bool), self.rest.copy()
            sent[own] = True
            state[:, own] = values[:, at : at + len(own)]
            at += len(own)
            effects.append(self._effect(sent, state, rest))
        return Decoded(effects, a and b and c and e)

    def _effect(self, sent: np.ndarray, state: np.ndarray, buffers: np.ndarray) -> Effect:
        row = np.concatenate([state.reshape(-1), buffers])
        columns = np.concatenate([np.tile(sent, self.depth), np.ones(len(buffers), bool)])
        if not np.isfinite(row).all():
            return Effect(row, columns, Fate.QUARANTINE, "not finite")
        error = disobedience(self.config, self.state[:, sent], state[:, sent], self.precision)
        if error > _GROSS:
            return Effect(row, columns, Fate.QUARANTINE, f"breaks the rule by {error:.3g} times")
        return Effect(row, columns, Fate.EITHER, "may or may not obey the rule to rounding")

    def expected(
        self, rule: str, effects: Sequence[Effect], weights: np.ndarray, dtype: Any
    ) -> Expected | None:
        """See `Kind`; with no filter, the mean of the states, and the median of buffers."""
        if rule != "none":
            return None
        d, share = self.model.d, weights / weights.sum()
        states = np.stack([effect.row for effect in effects])
        theta, buffers = states[:, :d], states[:, self.depth * d :]
        with np.errstate(over="ignore", invalid="ignore"):
            new = np.concatenate([share @ theta, np.median(buffers, axis=0)])
            size = np.concatenate([share @ np.abs(theta), np.abs(buffers).max(axis=0, initial=0)])
        size = size + np.abs(self.start)
        rounding = 64.0 * float(np.finfo(dtype).eps) * size + 2 * self.model.eps * np.abs(new)
        return Expected(new, rounding + np.where(self.model.whole, 1.0, 1e-37), np.zeros(len(new), bool))


class FullMoments(Moments):
    """The full form: every array that was broadcast, with the client's values."""

    def encode(self, locals_: Sequence[Local], *, cohort: bool) -> dict[str, np.ndarray]:
        """See `Kind`."""
        rows = []
        for local in locals_:
            gradient = np.where(np.repeat(local.touched, self.widths), local.update[: self.model.d], 0.0)
            with np.errstate(over="ignore", invalid="ignore"):
                buffers = (self.start - local.update)[self.model.d :]
            rows.append(np.concatenate([self.trained(gradient).reshape(-1).astype(np.float64), buffers]))
        if cohort:
            with np.errstate(over="ignore"):
                return {"rows": np.array(rows).reshape(-1, self.broadcast.width).astype(self.model.row_dtype)}
        return dict(zip(self.broadcast.names, self.broadcast.arrays(rows[0]), strict=True))
