"""Moments uploads: one step of the server's optimizer, as parameters and moments of the rows it touched."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from byzflower.numerics.rows import Rows
from byzflower.numerics.threads import map_blocks
from byzflower.uploads.base import Rejected, Rejection, Upload, among
from byzflower.uploads.dense import Dense, DenseUpload, Weights
from byzflower.uploads.kind import Aggregate, Broadcast, Forged, Memory, UploadKind, UploadRound
from byzflower.uploads.layout import Layout
from byzflower.uploads.moments_layout import MomentsLayout, Touched, Units, ends_of, map_units, moments_layout
from byzflower.uploads.optimizers import OPTIMIZER, Optimizer

Inspect = Literal["gradients", "parameters"]
TOUCHED, SPLITS, VALUES, BUFFERS = "touched", "splits", "values", "buffers"
COMPACT = (TOUCHED, SPLITS, VALUES, BUFFERS)
_DENSE: Dense = Weights()


@dataclass
class MomentsUpload(Upload):
    """Parameters and moments of k clients, each of the rows that it touched.

    Layouts are those of the broadcast: model and moments (`MomentsLayout.full`). In the full form a
    client sends all of these arrays, in the compact one its touched rows; what is absent has seen a
    gradient of 0, and the server knows what that makes of it.

    Attributes:
        touched: of each client, (r,) int32 rows, ascending.
        values: of each client, (depth, width of these rows).
        buffers: (k, num_buffers).
    """

    kind: ClassVar[str] = "moments"

    touched: Sequence[NDArray[np.int32]]
    values: Sequence[NDArray[Any]]
    buffers: NDArray[Any]

    def client(self, index: int) -> Touched:
        """What the client at this position sends: views."""
        return Touched(self.touched[index], self.values[index], self.buffers[index])

    def take(self, indices: list[int]) -> "MomentsUpload":
        """Return the uploads of the clients at these positions."""
        return MomentsUpload(
            [self.client_ids[i] for i in indices],
            self.num_examples[indices],
            [self.metrics[i] for i in indices],
            [self.touched[i] for i in indices],
            [self.values[i] for i in indices],
            self.buffers[indices],
        )

    def without_untouched(self, rest: NDArray[Any], layout: MomentsLayout) -> "MomentsUpload":
        """Leave out rows that are exactly what a gradient of 0 makes of them.

        Args:
            rest: (depth, d) state of a client that touched nothing.
            layout: of the broadcast.
        """
        clients = [layout.without_untouched(self.client(i), rest) for i in range(len(self))]
        return MomentsUpload(
            self.client_ids,
            self.num_examples,
            self.metrics,
            [client.rows for client in clients],
            [client.values for client in clients],
            self.buffers,
        )

    def payload(self, layout: Layout, *, cohort: bool) -> dict[str, NDArray[Any]]:
        """The compact form, for one client or many."""
        own = moments_layout(layout)
        nothing = np.empty((own.depth, 0), layout.row_dtype)
        values = np.concatenate([nothing, *self.values], axis=1) if len(self) != 1 else self.values[0]
        touched = np.concatenate([np.empty(0, np.int32), *self.touched])
        splits = ends_of([len(rows) for rows in self.touched])
        return dict(zip(COMPACT, (touched, splits, values, self.buffers), strict=True))

    def client_bytes(self, layout: Layout) -> list[int]:
        """Bytes of the compact form of each client."""
        each = 2 * np.dtype(np.int64).itemsize + layout.num_buffers * layout.row_dtype.itemsize
        return [
            rows.nbytes + values.nbytes + each for rows, values in zip(self.touched, self.values, strict=True)
        ]


class FullMoments(MomentsUpload):
    """The full form: every client touched all rows. Of a client alone, a row is made anew each time."""

    def __init__(self, dense: DenseUpload, layout: MomentsLayout) -> None:
        """Read dense uploads of model and moments."""
        Upload.__init__(self, dense.client_ids, dense.num_examples, dense.metrics)
        self._dense, self._own = dense, layout

    @property
    def touched(self) -> list[NDArray[np.int32]]:  # type: ignore[override]
        """All rows, of each client."""
        return [self._own.rows] * len(self)

    @property
    def values(self) -> list[NDArray[Any]]:  # type: ignore[override]
        """The state of each client."""
        return [self._own.state(self._dense.row(i)) for i in range(len(self))]

    @property
    def buffers(self) -> NDArray[Any]:  # type: ignore[override]
        """(k, num_buffers)."""
        return self._dense.rows[:, self._own.depth * self._own.model.d :]

    def client(self, index: int) -> Touched:
        """What the client at this position sends."""
        row = self._dense.row(index)
        state = self._own.state(row)
        return Touched(self._own.rows, state, row[state.size :])

    def take(self, indices: list[int]) -> MomentsUpload:
        """Those of the dense upload."""
        return FullMoments(self._dense.take(indices), self._own)

    def client_bytes(self, layout: Layout) -> list[int]:
        """Bytes of the compact form with all rows."""
        rows = layout.width * layout.row_dtype.itemsize + self._own.rows.nbytes
        return [rows + 2 * np.dtype(np.int64).itemsize] * len(self)


@dataclass
class MomentsRound(UploadRound):
    """Moments uploads, those left out that broke the update rule.

    Coordinates no client touched equal `nothing` and are not stored: all clients are alike there, with
    gradient 0. Uploads stay where they are, and are read by blocks.

    Attributes:
        layout: of model and moments.
        clients: the n clients' values; their rows are numbered among those that anybody touched.
        steps: (n, num_buffers) steps of the buffers.
        nothing: (depth, d) state of a client that touched nothing.
        units: which units of the state anybody touched.
        starts: first of these units of each touched row, and where the last ends.
        before: (depth, touched units, unit) of the state that was broadcast.
        optimizer: whose step the clients took.
        inspect: what the filter looks at.
    """

    layout: MomentsLayout
    clients: list[Touched]
    steps: NDArray[Any]
    nothing: NDArray[Any]
    units: NDArray[np.bool_]
    starts: NDArray[np.int64]
    before: torch.Tensor
    optimizer: Optimizer
    inspect: Inspect

    @cached_property
    def rest(self) -> torch.Tensor:
        """(depth, touched units, unit) of `nothing`."""
        return torch.from_numpy(self.layout.by_unit(self.nothing)[:, self.units])

    def gradients(self, device: torch.device) -> torch.Tensor:
        """What the filter sees: (n, columns that anybody touched)."""
        return self.seen(self.inspect).to(device)

    @property
    def buffers(self) -> torch.Tensor:
        """The (n, num_buffers) steps of the buffers."""
        return torch.from_numpy(self.steps)

    def seen(self, what: Inspect) -> torch.Tensor:
        """The clients' gradients or parameters: (n, columns that anybody touched)."""
        if what == "parameters":
            return self.slot(0)
        return self._rows(
            torch.zeros_like(self.rest[0]),
            lambda after, units: self.optimizer.recover(self.before[:, units], after),
        )

    def slot(self, index: int) -> torch.Tensor:
        """The clients' parameters (0) or one of their moments: (n, columns that anybody touched)."""
        return self._rows(self.rest[index], lambda after, units: after[index])

    def _rows(
        self, untouched: torch.Tensor, values: Callable[[torch.Tensor, Units], torch.Tensor]
    ) -> torch.Tensor:
        """One row for each client: `values` of its state where it touched any, else those `untouched`.

        Rules need a column: if nobody touched anything there is one, of zeros.
        """
        if not self.units.any():
            return self.rest.new_zeros(len(self.clients), 1)
        rows = untouched.repeat(len(self.clients), 1, 1)

        def write(one: slice) -> None:
            row = rows[one.start]

            def write_block(after: torch.Tensor, units: Units) -> None:
                row[units] = values(after, units)

            self._map(self.clients[one.start], write_block)

        map_blocks(write, len(rows), 1)
        return rows.view(len(rows), -1)

    def _map(self, client: Touched, work: Callable[[torch.Tensor, Units], None]) -> None:
        map_units(self.layout, client, self.starts, work)

    def mean(self, shares: torch.Tensor) -> torch.Tensor:
        """Weighted mean of the clients' states where anybody touched them: (depth, units, unit) float64.

        The sum of how far they are from `rest`, always in the order of the clients.
        """
        rest, total = self.rest, self.rest.to(torch.float64, copy=True)
        for client, share in zip(self.clients, shares.tolist(), strict=True):

            def add(after: torch.Tensor, units: Units, share: float = share) -> None:
                change = after.double().sub_(rest[:, units]).mul_(share)
                if isinstance(units, slice):
                    total[:, units] += change
                else:
                    total.index_add_(1, units, change)

            if share != 0:
                self._map(client, add)
        return total

    def matrix(self) -> torch.Tensor:
        """The recovered gradients in all columns of the model: (n, d), 0 where nobody touched anything."""
        full = self.rest.new_zeros(len(self.clients), self.layout.model.d)
        columns = torch.from_numpy(np.repeat(self.units, self.layout.unit))
        if columns.any():
            full[:, columns] = self.seen("gradients")
        return full


class Moments(UploadKind):
    """Clients take one optimizer step from the server's moments, and send parameters and moments.

    The server broadcasts both; the model that it hands on is the parameters alone. From each upload it
    recovers the gradient and verifies that the upload obeys the optimizer's rule. Parameters and moments
    of the clients that a rule keeps are averaged, each separately, by the clients' shares.
    """

    name: ClassVar[str] = "moments"
    learned: ClassVar[Literal["model", "gradient"]] = "gradient"
    owns_step: ClassVar[bool] = True
    own_buffers: ClassVar[bool] = True
    measures_itself: ClassVar[bool] = True

    def __init__(
        self, optimizer: Optimizer, inspect: Inspect = "gradients", tolerance: float = 1e-4, step: int = 0
    ) -> None:
        """Choose the optimizer.

        Args:
            optimizer: whose step the clients take.
            inspect: what rules look at: recovered "gradients", or the "parameters" as uploaded.
            tolerance: of the update rule; see `Optimizer.obeyed`.
            step: how many steps the server has taken.

        Raises:
            ValueError: an option out of its range.
        """
        if inspect not in ("gradients", "parameters"):
            raise ValueError(f"inspect must be gradients or parameters, got {inspect!r}")
        if not tolerance > 0:
            raise ValueError(f"tolerance must be positive, got {tolerance!r}")
        self.optimizer = optimizer
        self.inspect = inspect
        self.reads_gradients = inspect == "gradients"
        self.tolerance = tolerance
        self.steps = step
        self._moments: NDArray[Any] = np.empty(0)
        self._last: MomentsRound | None = None

    # -- what the server sends -------------------------------------------------------------------

    def broadcast(self, model: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The model's arrays, and the moments of each parameter, at first zero."""
        self._last = None  # the last round's uploads are no longer needed
        layout = MomentsLayout(Layout.of(model), self.optimizer.slots).full
        row = layout.row([*model.values(), *(np.zeros(s) for s in layout.shapes[len(model) :])])
        d = moments_layout(layout).model.d
        if len(self._moments):
            row[d : d + len(self._moments)] = self._moments
        return dict(zip(layout.names, layout.arrays(row), strict=True))

    def told(self) -> dict[str, Any]:
        """The name, and the optimizer with the number of the step to take."""
        return {**super().told(), **self.optimizer.to_config(self.steps + 1)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The optimizer, and the step to take.

        Raises:
            ValueError: the server keeps no moments.
        """
        if OPTIMIZER not in config:
            raise ValueError("the server keeps no moments: its strategy must be ARFRS or one of its siblings")
        optimizer, t = Optimizer.from_config(config)
        return cls(optimizer, step=t - 1)

    # -- what a client sends ---------------------------------------------------------------------

    def state(self, model: Layout, arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Parameters and moments: (1 + slots, d).

        Raises:
            ValueError: the arrays are not the model's and its moments.
        """
        layout = MomentsLayout(model, self.optimizer.slots)
        if tuple(array.shape for array in arrays) != layout.full.shapes:
            raise ValueError("the arrays that were broadcast are not this model's and its moments")
        return layout.state(layout.full.joined(arrays))

    def encode(
        self, learned: Sequence[NDArray[Any]], sent: Sequence[NDArray[Any]], model: Layout, memory: Memory
    ) -> list[NDArray[Any]]:
        """The arrays after a step by the learned gradient; the buffers are the client's own."""
        layout, row = MomentsLayout(model, self.optimizer.slots), model.row(learned)
        before = torch.from_numpy(np.array(self.state(model, sent)))
        after = self.optimizer.step(before, torch.from_numpy(row[: model.d]), self.steps + 1).numpy()
        return layout.full.arrays(np.concatenate([after.reshape(-1), row[model.d :]]))

    def compact(
        self, arrays: Sequence[NDArray[Any]], sent: Sequence[NDArray[Any]], model: Layout
    ) -> list[NDArray[Any]]:
        """The same as `encode` gave, without the rows that a gradient of 0 explains."""
        layout = MomentsLayout(model, self.optimizer.slots)
        full = layout.full
        named = dict(zip(full.names, arrays, strict=True))
        upload = self.decode(named, full, [0], np.ones(1), [{}], cohort=False)
        before = torch.from_numpy(np.array(self.state(model, sent)))
        rest = self.optimizer.step(before, torch.zeros(()), self.steps + 1).numpy()
        payload = upload.without_untouched(rest, layout).payload(full, cohort=False)
        return [payload[name] for name in COMPACT]

    def names(self, layout: Layout) -> tuple[str, ...]:
        """Those of the full form."""
        return layout.names

    def named(self, arrays: Sequence[NDArray[Any]], layout: Layout) -> dict[str, NDArray[Any]]:
        """Name the arrays of either form: the compact one begins with the numbers of its rows."""
        if len(arrays) == len(COMPACT) and arrays[0].dtype == np.int32 and arrays[1].dtype == np.int64:
            return dict(zip(COMPACT, arrays, strict=True))
        return super().named(arrays, layout)

    def join(self, uploads: Sequence[MomentsUpload], layout: Layout) -> MomentsUpload:
        """Views of them all."""
        own = moments_layout(layout)
        nothing = np.empty((0, own.model.num_buffers), layout.row_dtype)
        return MomentsUpload(
            [client for upload in uploads for client in upload.client_ids],
            np.concatenate([np.empty(0), *(upload.num_examples for upload in uploads)]),
            [metrics for upload in uploads for metrics in upload.metrics],
            [rows for upload in uploads for rows in upload.touched],
            [values for upload in uploads for values in upload.values],
            np.concatenate([nothing, *(upload.buffers for upload in uploads)]),
        )

    # -- what the server reads -------------------------------------------------------------------

    def decode(
        self,
        arrays: Mapping[str, NDArray[Any]],
        layout: Layout,
        client_ids: list[int],
        num_examples: NDArray[np.float64],
        metrics: list[dict[str, float]],
        *,
        cohort: bool,
    ) -> MomentsUpload:
        """Either form, from untrusted arrays, as views.

        Raises:
            Rejected: with the reason.
        """
        own = moments_layout(layout)
        if tuple(arrays) != COMPACT:
            dense = _DENSE.decode(arrays, layout, client_ids, num_examples, metrics, cohort=cohort)
            return FullMoments(dense, own)
        touched, splits, values, buffers = (arrays[name] for name in COMPACT)
        offsets = _check_compact(touched, splits, values, buffers, own, len(client_ids))
        return MomentsUpload(
            client_ids,
            num_examples,
            metrics,
            [touched[start:stop] for start, stop in pairwise(splits)],
            [values[:, start:stop] for start, stop in pairwise(offsets)],
            buffers,
        )

    def rows(self, uploads: Sequence[MomentsUpload], sent: Broadcast, server_lr: float) -> MomentsRound:
        """Verify the update rule, of each client by itself; work and memory grow with touched rows."""
        own, t = moments_layout(sent.layout), self.steps + 1
        before = torch.from_numpy(np.asarray(own.by_unit(own.state(sent.row))))
        rest = self.optimizer.step(before, torch.zeros(()), t)
        nothing = rest.view(own.depth, -1).numpy()
        buffers = sent.row[own.depth * own.model.d :]
        found = {c: (upload, i) for upload in uploads for i, c in enumerate(upload.client_ids)}
        order = sorted(found)

        def judge(one: slice) -> tuple[Touched, str | None]:
            upload, i = found[order[one.start]]
            client = own.without_untouched(upload.client(i), nothing)
            if not np.isfinite(buffers - client.buffers).all():
                return client, "NaN or Inf in the buffers"
            return client, self._fault(client, own, before, t)

        judged = dict(zip(order, map_blocks(judge, len(order), 1), strict=True))
        good = {c: client for c, (client, fault) in judged.items() if fault is None}
        touched = np.zeros(own.num_rows, np.bool_)
        for client in good.values():
            touched[client.rows] = True
        places = (np.cumsum(touched) - 1).astype(np.int32)
        sizes = np.diff(own.unit_starts)
        units = np.repeat(touched, sizes)
        return MomentsRound(
            [*good],
            np.array([found[c][0].num_examples[found[c][1]] for c in good]),
            [Rejection(c, fault) for c, (_, fault) in judged.items() if fault is not None],
            int(own.widths[touched].sum()),
            own,
            [client._replace(rows=places[client.rows]) for client in good.values()],
            np.array([buffers - client.buffers for client in good.values()]).reshape(len(good), len(buffers)),
            nothing,
            units,
            ends_of(sizes[touched]),
            before[:, torch.from_numpy(units)],
            self.optimizer,
            self.inspect,
        )

    def _fault(self, client: Touched, own: MomentsLayout, before: torch.Tensor, t: int) -> str | None:
        """Why a client cannot have taken step `t` from the state `before`, or None."""

        def verify(after: torch.Tensor, units: Units) -> tuple[int, float]:
            start = before[:, units]
            obeyed = self.optimizer.obeyed(start, after, t, self.tolerance)
            gradient = self.optimizer.recover(start, after).double()
            return obeyed.numel() - int(obeyed.count_nonzero()), float(gradient.square_().sum())

        verified = map_units(own, client, own.unit_starts, verify)
        broken, square = sum(bad for bad, _ in verified), sum(part for _, part in verified)
        if broken:
            name, width = self.optimizer.name, client.values.shape[1]
            return f"breaks the update rule of {name} in {broken} of {width} coordinates"
        dtype = client.values.dtype
        if not square <= np.finfo(dtype).max:
            return f"the squared norm of its recovered gradient overflows {dtype}"
        return None

    def step(
        self, rows: MomentsRound, aggregate: Aggregate, sent: Broadcast, server_lr: float
    ) -> NDArray[Any]:
        """Average parameters and moments, each separately."""
        own, new = moments_layout(sent.layout), np.array(sent.row)
        self._last, state = rows, own.state(new)
        state[:] = rows.nothing
        own.by_unit(state)[:, rows.units] = rows.mean(aggregate.shares).numpy()
        new[state.size :] -= aggregate.buffers.numpy()
        return new

    def trained(self, layout: Layout) -> Layout:
        """The model, without the moments."""
        return moments_layout(layout).model

    def applied(self, before: Broadcast, after: NDArray[Any], server_lr: float) -> NDArray[Any]:
        """The gradient that the moments reveal, in the units of the clients' own."""
        own = moments_layout(before.layout)
        states = (torch.from_numpy(np.array(own.state(row))) for row in (before.row, after))
        gradient: NDArray[Any] = self.optimizer.recover(*states).numpy()
        return gradient

    def taken(self, new: NDArray[Any], sent: Broadcast) -> None:
        """Keep the moments."""
        state = moments_layout(sent.layout).state(new)
        self._moments, self.steps = state[1:].reshape(-1).copy(), self.steps + 1

    def model(self, new: NDArray[Any], layout: Layout) -> dict[str, NDArray[Any]]:
        """The parameters and buffers; the moments stay here."""
        arrays = super().model(new, layout)
        return {name: arrays[name] for name in moments_layout(layout).model.names}

    def observe(self, kept: Collection[int], benign: Collection[int]) -> dict[str, float]:
        """How far those that were kept are from the benign: one round's terms of definition 1.

        A defence is Adam-Byzantine resilient if their sums over all rounds stay bounded (A-RFRS paper).

        Returns:
            ``spread-theta`` and ``spread-m``, ...: sum over kept and benign clients of this round of the
            Euclidean distance between the two.
        """
        last = self._last
        if last is None:
            return {}
        chosen, others = among(last.client_ids, kept), among(last.client_ids, benign)
        sums = {}
        for i, slot in enumerate(("theta", *self.optimizer.slots)):
            away = Rows.of(last.slot(i)).squared_distances
            sums[f"spread-{slot}"] = float(away.sqrt()[chosen][:, others].sum())
        return sums

    def views(self) -> dict[str, torch.Tensor]:
        """What rules can look at of the last round's clients, where anybody touched it."""
        if self._last is None:
            return {}
        return {"parameters": self._last.seen("parameters"), "gradients": self._last.seen("gradients")}

    # -- what an adversary writes ----------------------------------------------------------------

    def forge(self, upload: MomentsUpload, forged: Forged, sent: Broadcast) -> MomentsUpload:
        """Replace the forged clients' steps by steps along the gradients they are to upload."""
        own, t = moments_layout(sent.layout), self.steps + 1
        before = torch.from_numpy(np.array(own.state(sent.row)))
        touched, values = [*upload.touched], [*upload.values]
        for i, position in forged.positions(upload.client_ids):
            after = self.optimizer.step(before, forged.rows[position].to(before), t)
            touched[i], values[i] = own.rows, after.numpy()
        return MomentsUpload(
            upload.client_ids, upload.num_examples, upload.metrics, touched, values, upload.buffers
        )

    # -- what it remembers -----------------------------------------------------------------------

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """The moments, and the number of steps."""
        return {"moments": self._moments, "steps": np.array(self.steps)}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what `state_dict` gave."""
        self._moments, self.steps = np.array(state["moments"]), int(state["steps"])


def _check_compact(
    touched: NDArray[Any],
    splits: NDArray[Any],
    values: NDArray[Any],
    buffers: NDArray[Any],
    layout: MomentsLayout,
    k: int,
) -> NDArray[np.int64]:
    """Check the compact form of k clients.

    Returns:
        The offsets.

    Raises:
        Rejected: with the reason.
    """
    for name, array, kind, ndim in (
        (TOUCHED, touched, np.dtype(np.int32), 1),
        (SPLITS, splits, np.dtype(np.int64), 1),
        (VALUES, values, layout.full.row_dtype, 2),
        (BUFFERS, buffers, layout.full.row_dtype, 2),
    ):
        if array.dtype != kind or array.ndim != ndim:
            raise Rejected(f"{name!r} is {array.dtype} of {array.ndim} dimensions, expected {kind} of {ndim}")
    if (
        splits.shape != (k + 1,)
        or splits[0] != 0
        or splits[-1] != len(touched)
        or (splits[1:] < splits[:-1]).any()
    ):
        raise Rejected(f"{SPLITS!r} does not divide {len(touched)} touched rows among {k} clients")
    if len(touched) and not (touched.min() >= 0 and touched.max() < layout.num_rows):
        raise Rejected(f"touched rows are not all in [0, {layout.num_rows})")
    descends = np.diff(touched) <= 0
    descends[splits[1:-1][(splits[1:-1] > 0) & (splits[1:-1] < len(touched))] - 1] = False
    if descends.any():
        raise Rejected("touched rows are not ascending, each once")
    offsets = ends_of(layout.widths[touched])
    if values.shape != (layout.depth, offsets[-1]):
        raise Rejected(f"{VALUES!r} has shape {values.shape}, expected {(layout.depth, int(offsets[-1]))}")
    if buffers.shape != (k, layout.model.num_buffers):
        raise Rejected(f"{BUFFERS!r} has shape {buffers.shape}, expected {(k, layout.model.num_buffers)}")
    divided: NDArray[np.int64] = offsets[splits]
    return divided
