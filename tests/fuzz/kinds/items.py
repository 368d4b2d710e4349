"""Item uploads: gradient rows of the items that a client touched, and one for all other parameters."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..content import Payload
from ..models import Model
from .average import longest_step, moved
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
    values_in,
)

_I4, _I8, _F4 = np.dtype(np.int32), np.dtype(np.int64), np.dtype(np.float32)


class Items(Kind):
    """Rows of the model's first array, by item."""

    def __init__(self, model: Model, arrays: Sequence[np.ndarray], config: Mapping[str, Any]) -> None:
        super().__init__(model, arrays, config)
        self.items, self.dim = model.shapes[0]
        self.rest = model.width - self.items * self.dim
        self.parts = self.items

    def names(self, *, cohort: bool) -> list[str]:
        """Names of the arrays, in order."""
        return [*(["splits"] if cohort else []), "items", "rows", *(["dense"] if self.rest else [])]

    def encode(self, locals_: Sequence[Local], *, cohort: bool) -> dict[str, np.ndarray]:
        """See `Kind`."""
        table = self.items * self.dim
        items = [np.flatnonzero(local.touched) for local in locals_]
        with np.errstate(over="ignore"):
            rows = [
                local.update[:table].reshape(-1, self.dim)[own].astype(_F4)
                for local, own in zip(locals_, items, strict=True)
            ]
            dense = np.array([local.update[table:] for local in locals_]).reshape(len(items), -1).astype(_F4)
        splits = np.cumsum([0, *map(len, items)]).astype(_I8)
        parts = {
            "splits": splits,
            "items": np.concatenate([np.empty(0), *items]).astype(_I4),
            "rows": np.concatenate([np.empty((0, self.dim), _F4), *rows]),
            "dense": dense if cohort else dense[0],
        }
        return {name: parts[name] for name in self.names(cohort=cohort)}

    def decode(self, arrays: Mapping[str, Payload], k: int, *, cohort: bool) -> Decoded:
        """See `Kind`; one client's arrays go by position, as a NumPyClient returns a list."""
        names = self.names(cohort=cohort)
        if len(arrays) != len(names) or (cohort and list(arrays) != names):
            raise Malformed(f"arrays {list(arrays)!r:.80}, expected {names}")
        parts = dict(zip(names, arrays.values(), strict=True))
        items, usual = any_shape(parts["items"], _I4, 1)
        splits = np.array([0, len(items)])
        if cohort:
            splits, usual_splits = values_in(parts["splits"], _I8, (k + 1,))
            usual = usual and usual_splits
        rows, usual_rows = values_in(parts["rows"], _F4, (len(items), self.dim))
        dense, usual_dense = np.empty((k, 0)), True
        if self.rest:
            shape = (k, self.rest) if cohort else (self.rest,)
            dense, usual_dense = values_in(parts["dense"], _F4, shape)
        owns = _divide(items, splits, self.items)
        effects = [
            self._effect(items[own], rows[own], row)
            for own, row in zip(owns, dense.reshape(k, -1), strict=True)
        ]
        certain = usual and usual_rows and usual_dense and list(arrays) == names
        return Decoded(effects, certain)

    def _effect(self, items: np.ndarray, rows: np.ndarray, dense: np.ndarray) -> Effect:
        table = self.items * self.dim
        row, sent = np.zeros(self.model.width), np.zeros(self.model.width, bool)
        row[:table].reshape(-1, self.dim)[items] = rows
        sent[:table].reshape(-1, self.dim)[items] = True
        row[table:], sent[table:] = dense, True
        fates = [fate_of_row(part, len(part), _F4) for part in (*rows.astype(np.float64), row[table:])]
        hard = [fate for fate in fates if fate[0] is Fate.QUARANTINE]
        soft = [fate for fate in fates if fate[0] is Fate.EITHER]
        fate, why = (hard or soft or [(Fate.ACCEPT, "")])[0]
        if fate is Fate.ACCEPT and not len(items):
            fate, why = Fate.EITHER, "sends no item"
        return Effect(row, sent, fate, why)

    def expected(
        self, rule: str, effects: Sequence[Effect], weights: np.ndarray, dtype: Any
    ) -> Expected | None:
        """See `Kind`; items are averaged without weights, and only over the clients that touched them."""
        if self.config.get("server-optimizer") == "adam":
            return None
        equal = np.ones(len(effects))
        known = {"mean": "fedavg", "median": "median"}.get(rule, "")
        expected = moved(known, self.start, effects, equal, self.model, dtype, contributors=True)
        if expected is not None:
            expected.may_stay = self._may_stay(effects, self.start - expected.row)
        return expected

    def _may_stay(self, effects: Sequence[Effect], step: np.ndarray) -> np.ndarray:
        """Columns of the items that would move much farther than most clients move any."""
        table = self.items * self.dim
        rows = np.stack([effect.row for effect in effects])[:, :table].reshape(-1, self.items, self.dim)
        with np.errstate(over="ignore"):
            most = longest_step(np.linalg.norm(rows, axis=2).max(axis=1))
            long = np.linalg.norm(step[:table].reshape(-1, self.dim), axis=1) > most
        return np.concatenate([np.repeat(long, self.dim), np.zeros(self.rest, bool)])


def _divide(items: np.ndarray, splits: np.ndarray, count: int) -> list[slice]:
    """The places of each client's items.

    Raises:
        Malformed: splits or items that are none.
    """
    if splits[0] != 0 or splits[-1] != len(items) or (np.diff(splits) < 0).any():
        raise Malformed("splits do not divide the items")
    owns = [slice(int(a), int(b)) for a, b in itertools.pairwise(splits)]
    for own in owns:
        mine = items[own].astype(np.int64)
        if (np.diff(mine) <= 0).any() or ((mine < 0) | (mine >= count)).any():
            raise Malformed("items out of range, or not ascending, each once")
    return owns
