"""Moments uploads: one step of the server's optimizer, as parameters and moments of the rows it touched."""

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from byzflower.numerics.rows import Rows
from byzflower.numerics.threads import map_blocks
from byzflower.uploads.base import Rejection, among
from byzflower.uploads.dense import Dense, Weights
from byzflower.uploads.kind import UploadKind
from byzflower.uploads.layout import Layout
from byzflower.uploads.moments_layout import MomentsLayout, Touched, Units, ends_of, map_units, moments_layout
from byzflower.uploads.moments_round import Inspect, MomentsRound
from byzflower.uploads.moments_upload import COMPACT, FullMoments, MomentsUpload, check_compact
from byzflower.uploads.optimizers import OPTIMIZER, Optimizer
from byzflower.uploads.round import Aggregate, Broadcast, Forged, Memory, row_bytes, work_bytes

_DENSE: Dense = Weights()


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
        """The model's arrays, and the moments of each parameter, at first zero.

        Raises:
            ValueError: parameters in float16, in which steps cannot be told from their rounding.
        """
        self._last = None  # the last round's uploads are no longer needed
        own = MomentsLayout(Layout.of(model), self.optimizer.slots)
        if own.precision not in (torch.float32, torch.float64):
            raise ValueError(f"moments need parameters in float32 or float64, got {own.precision}")
        layout = own.full
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
        offsets = check_compact(touched, splits, values, buffers, own, len(client_ids))
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
            misfit = own.misfit(client)
            with np.errstate(over="ignore", invalid="ignore"):
                step = buffers - client.buffers
            client = client._replace(buffers=step)  # no view that would keep a whole row
            if not np.isfinite(client.buffers).all():
                return client, "NaN or Inf in the buffers"
            return client, misfit or self._fault(client, own, before, t)

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
            np.array([client.buffers for client in good.values()]).reshape(len(good), len(buffers)),
            nothing,
            units,
            ends_of(sizes[touched]),
            before[:, torch.from_numpy(units)],
            self.optimizer,
            self.inspect,
        )

    def _fault(self, client: Touched, own: MomentsLayout, before: torch.Tensor, t: int) -> str | None:
        """Why a client cannot have taken step `t` from the state `before`, or None."""
        numbers = torch.finfo(own.precision)

        def verify(after: torch.Tensor, units: Units) -> tuple[int, float]:
            start = before[:, units]
            obeyed = self.optimizer.obeyed(start, after, t, self.tolerance, numbers)
            gradient = self.optimizer.recover(start, after).double()
            return obeyed.numel() - int(obeyed.count_nonzero()), float(gradient.square_().sum())

        verified = map_units(own, client, own.unit_starts, verify)
        broken, square = sum(bad for bad, _ in verified), sum(part for _, part in verified)
        if broken:
            name, width = self.optimizer.name, client.values.shape[1]
            return f"breaks the update rule of {name} in {broken} of {width} coordinates"
        dtype = client.values.dtype
        if not square <= float(np.finfo(dtype).max):
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

    def upload_bytes(self, layout: Layout) -> float:
        """Bytes as `UploadKind` has them.

        An upload as it arrived, the rows that it touched unless it sent just those, a row of what the filter
        sees and a fifth of it for the filter; and the numbers of its rows.
        """
        own = moments_layout(layout)
        filtered = 1.2 * own.model.d * layout.row_dtype.itemsize
        return 2.1 * row_bytes(layout) + filtered + 3 * own.rows.nbytes + work_bytes(own.model)

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
