"""A round of uploads: what was sent, what came, what a rule made of it, what an adversary puts into it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from byzflower.numerics.cores import usable_cores
from byzflower.numerics.rows import Rows
from byzflower.uploads.base import Rejection
from byzflower.uploads.layout import Layout

# What rules have in work of each client, on each core: some temporaries of a block of columns.
_WORK_BYTES, _WORK_COLUMNS = 32, 1 << 15
UPLOAD = "upload"  # under this key clients are told the name of the kind

Memory = dict[str, NDArray[Any]]
# An attack on what is sent: (f, d) rows to upload; benign rows, what each sent, size and number of packs of a
# client -> (f, d) rows and (f, P) what is sent of them.
Place = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int, int], tuple[torch.Tensor, torch.Tensor]]


def row_bytes(layout: Layout) -> int:
    """Bytes of a row."""
    return layout.width * layout.row_dtype.itemsize


def work_bytes(layout: Layout) -> int:
    """Bytes of one client's share in what a rule has in work at a time, on all cores."""
    return _WORK_BYTES * min(layout.d, usable_cores() * _WORK_COLUMNS)


class Broadcast(NamedTuple):
    """What a round's clients were sent.

    Attributes:
        layout: of the arrays.
        row: (width,) their values; not to be modified.
    """

    layout: Layout
    row: NDArray[Any]

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> "Broadcast":
        """Describe named arrays; their memory is shared where they lie in one row already."""
        layout = Layout.of(arrays)
        return cls(layout, layout.joined(list(arrays.values())))


@dataclass
class UploadRound(ABC):
    """A round's well-formed uploads as a rule reads them, in the order of their clients' ids.

    Attributes:
        client_ids: of the n rows, ascending.
        num_examples: (n,) as the clients report them.
        rejections: clients whose values are not finite, or too large to work with.
        d: columns of a row.
    """

    client_ids: list[int]
    num_examples: NDArray[np.float64]
    rejections: list[Rejection]
    d: int

    masks: ClassVar[NDArray[np.bool_] | None] = None

    @abstractmethod
    def gradients(self, device: torch.device) -> Any:
        """The n pseudo-gradients, as the rules of this kind read them: (n, d), or `Rows` of them."""

    @property
    @abstractmethod
    def buffers(self) -> torch.Tensor:
        """The (n, num_buffers) steps of the model's buffers, on the CPU."""

    def matrix(self) -> torch.Tensor:
        """The pseudo-gradients in all columns of the model: (n, d), 0 where a client sent nothing."""
        return Rows.of(self.gradients(torch.device("cpu"))).matrix()


class Aggregate(NamedTuple):
    """What a rule made of a round, for the step; all of it on the CPU.

    Attributes:
        gradient: (d,) the aggregate.
        shares: (n,) float64, each client's weight in plain averages; sums to 1.
        buffers: (num_buffers,) step of the buffers.
        moves: boolean (d,), the columns that step; None for all.
    """

    gradient: torch.Tensor
    shares: torch.Tensor
    buffers: torch.Tensor
    moves: torch.Tensor | None = None


class Forged(NamedTuple):
    """What the adversary wants f clients to have uploaded.

    Attributes:
        clients: their ids.
        rows: (f, d) pseudo-gradients, or what a kind of uploads with rules of its own takes for them.
        masks: what else a kind needs, e.g. the packs of each; empty where it needs nothing.
    """

    clients: list[int]
    rows: Any
    masks: torch.Tensor

    def positions(self, clients: Sequence[int]) -> list[tuple[int, int]]:
        """Positions in `clients` of those with a forged upload, and of that upload."""
        mine = {client: position for position, client in enumerate(self.clients)}
        return [(i, mine[client]) for i, client in enumerate(clients) if client in mine]
