"""A round of moments uploads, as rules read it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from byzflower.numerics.threads import map_blocks
from byzflower.uploads.moments_layout import MomentsLayout, Touched, Units, map_units
from byzflower.uploads.optimizers import Optimizer
from byzflower.uploads.round import UploadRound

Inspect = Literal["gradients", "parameters"]


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
