"""What a kind of upload has to say, from the server's broadcast to its next model, in one class.

A rule and a kind of upload are independent choices. Each kind is a class in a file of its own, with both
doors: what clients are sent and told, how they encode what they learned, how untrusted arrays are decoded,
how a round of them becomes rows, how the aggregate becomes the next model, and how an adversary forges one.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from byzflower.uploads.base import Upload
from byzflower.uploads.layout import Layout
from byzflower.uploads.round import (
    UPLOAD,
    Aggregate,
    Broadcast,
    Forged,
    Memory,
    Place,
    UploadRound,
    row_bytes,
    work_bytes,
)


class Gathering(ABC):
    """Uploads of one node's clients, put together one by one."""

    @abstractmethod
    def add(self, arrays: Sequence[NDArray[Any]]) -> None:
        """Add what the next client's `fit` returned.

        Raises:
            Rejected: it is no upload of this kind; then nothing was added.
        """

    @abstractmethod
    def upload(
        self, client_ids: list[int], num_examples: NDArray[np.float64], metrics: list[dict[str, float]]
    ) -> Upload:
        """All that was added, of these clients."""


class UploadKind(ABC):
    """A kind of upload; see the module.

    Attributes:
        name: what it is called in options, and told to clients.
        learned: what a client's training gives: a "model", or a "gradient" at the model that it was sent.
        by_contributors: whether rules see, of each column, only the clients that sent it.
        by_item: whether its rules aggregate item by item (`ItemStrategy`).
        owns_step: whether the step is the clients' own, so that the server's step size must be 1.
        measures_itself: whether it measures by itself how a round's uploads lie (`observe`, `views`).
        reads_gradients: whether the rows that rules read are gradients.
        own_buffers: whether clients that learned a gradient send their buffers as they are, not their steps.
    """

    name: ClassVar[str]
    learned: ClassVar[Literal["model", "gradient"]] = "model"
    by_contributors: bool = False
    by_item: ClassVar[bool] = False
    owns_step: ClassVar[bool] = False
    reads_gradients: bool = True
    own_buffers: ClassVar[bool] = False
    measures_itself: ClassVar[bool] = False

    def __repr__(self) -> str:
        """The class with its options: strategies show it among their settings."""
        options = [f"{name}={value!r}" for name, value in vars(self).items() if not name.startswith("_")]
        return f"{type(self).__name__}({', '.join(options)})"

    # -- what the server sends -------------------------------------------------------------------

    def broadcast(self, model: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """The arrays to send: the model's, and whatever this kind sends with them."""
        return model

    def told(self) -> dict[str, Any]:
        """What clients are told, for a ConfigRecord."""
        return {UPLOAD: self.name}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The clients' side of what `told` says.

        Raises:
            ValueError: it does not say enough.
        """
        return cls()

    # -- what a client sends ---------------------------------------------------------------------

    def everything(self) -> "UploadKind":
        """This kind without leaving anything out, for attackers whose upload is overwritten later."""
        return self

    def state(self, model: Layout, arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """What a client was sent, of each of the model's d parameters: (1 + k, d), the model first.

        Args:
            model: layout of the model alone.
            arrays: as they arrived.
        """
        return model.joined(arrays[: len(model.names)])[None, : model.d]

    def encode(
        self, learned: Sequence[NDArray[Any]], sent: Sequence[NDArray[Any]], model: Layout, memory: Memory
    ) -> list[NDArray[Any]]:
        """The arrays that a client sends.

        Args:
            learned: arrays of the model's layout: the trained model or the gradient, as `learned` says.
            sent: what the client was sent.
            model: layout of the model alone.
            memory: what this client keeps from round to round, by name; to be changed in place.
        """
        return [*learned]

    def named(self, arrays: Sequence[NDArray[Any]], layout: Layout) -> dict[str, NDArray[Any]]:
        """Name the arrays of one client's upload; arrays that are not one are named by position."""
        names = self.names(layout)
        if len(names) != len(arrays):
            names = tuple(map(str, range(len(arrays))))
        return dict(zip(names, arrays, strict=True))

    @abstractmethod
    def names(self, layout: Layout) -> tuple[str, ...]:
        """Names of the arrays of one client's upload, in order.

        Args:
            layout: of what was broadcast.
        """

    def gather(self, clients: int, layout: Layout) -> Gathering:
        """Begin to collect the uploads of up to so many clients on one node."""
        return _Joined(self, layout)

    @abstractmethod
    def join(self, uploads: Sequence[Any], layout: Layout) -> Upload:
        """One upload of all the clients of several, in their order."""

    # -- what the server reads -------------------------------------------------------------------

    @abstractmethod
    def decode(
        self,
        arrays: Mapping[str, NDArray[Any]],
        layout: Layout,
        client_ids: list[int],
        num_examples: NDArray[np.float64],
        metrics: list[dict[str, float]],
        *,
        cohort: bool,
    ) -> Upload:
        """Rebuild what `Upload.payload` made, from untrusted arrays.

        Raises:
            Rejected: with the reason.
        """

    @abstractmethod
    def rows(self, uploads: Sequence[Any], sent: Broadcast, server_lr: float) -> UploadRound:
        """Make a round of uploads, of distinct clients, what rules read.

        Args:
            uploads: of this kind.
            sent: what the clients started from.
            server_lr: step size that the aggregate will have.
        """

    def step(self, rows: Any, aggregate: Aggregate, sent: Broadcast, server_lr: float) -> NDArray[Any]:
        """The next row to broadcast: (width,), new. Here w - server_lr * aggregate, and the buffers' step."""
        d = sent.layout.d
        step = np.empty_like(sent.row)
        step[:d] = aggregate.gradient.numpy()
        step[:d] *= server_lr
        step[d:] = aggregate.buffers.numpy()
        new: NDArray[Any] = np.subtract(sent.row, step, out=step)
        return new

    def trained(self, layout: Layout) -> Layout:
        """The model's part of a layout that was broadcast."""
        return layout

    def applied(self, before: Broadcast, after: NDArray[Any], server_lr: float) -> NDArray[Any]:
        """The aggregate that led from one broadcast to the row of the next, as the two reveal it: (d,)."""
        step: NDArray[Any] = (before.row - after)[: before.layout.d] / server_lr
        return step

    def taken(self, new: NDArray[Any], sent: Broadcast) -> None:  # noqa: B027
        """Be told that the server took the step to `new`; kinds without memory do not care."""

    def model(self, new: NDArray[Any], layout: Layout) -> dict[str, NDArray[Any]]:
        """The model's named arrays in a row that was, or could be, broadcast."""
        return dict(zip(layout.names, layout.arrays(new), strict=True))

    def upload_bytes(self, layout: Layout) -> float:
        """Memory, in bytes, that one upload, as large as it may be, needs until it is aggregated.

        Here: as it arrived and as a row of the matrix, a fifth of a row for what receiving leaves in pieces
        and a rule notes of every value, and what is in work.
        """
        return 2.2 * row_bytes(layout) + work_bytes(layout)

    def pseudo_gradient(self, row: NDArray[Any], sent: Broadcast) -> NDArray[Any]:
        """What a whole model that was trained from `sent` (or a gradient, as `learned` says) means."""
        gradient: NDArray[Any] = sent.row - row
        return gradient

    def info(self, sent_bytes: int, clients: int, layout: Layout) -> dict[str, float]:
        """Numbers worth recording of a round in which so many clients sent so many bytes."""
        return {}

    def observe(self, kept: Collection[int], benign: Collection[int]) -> dict[str, float]:
        """What this kind measures of the last round in which the server stepped.

        Args:
            kept: ids of the clients that the rule kept.
            benign: ids of the clients that are no attackers.
        """
        return {}

    def views(self) -> dict[str, torch.Tensor]:
        """What can be drawn of the last round's uploads, by name: (n, columns) each."""
        return {}

    # -- what an adversary writes ----------------------------------------------------------------

    def crafted(
        self, clients: list[int], gradients: torch.Tensor, benign: Callable[[], Any], place: Place | None
    ) -> Forged:
        """Prepare forged uploads of some clients.

        Args:
            clients: f ids.
            gradients: (f, d) what they are to upload.
            benign: gives the benign clients' round.
            place: an attack's own choice of what is sent, where the kind leaves one.
        """
        return Forged(clients, gradients, torch.empty(0))

    def mixture(self, benign: Any, clients: list[int]) -> Callable[[torch.Tensor], Any]:
        """What rules read of a round in which some clients' rows are crafted.

        Args:
            benign: the benign clients' round.
            clients: f ids of the others.

        Returns:
            A function of (f, d) crafted rows; what it returned before is overwritten.
        """
        return dense_mixture(benign, clients)

    @abstractmethod
    def forge(self, upload: Any, forged: Forged, sent: Broadcast) -> Upload:
        """A copy of an upload, with the forged ones in the place of their clients'."""

    # -- what it remembers -----------------------------------------------------------------------

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """What must be saved with the model."""
        return {}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:  # noqa: B027
        """Restore what `state_dict` gave."""


class _Joined(Gathering):
    """Decodes each client's arrays as the server would, and joins them."""

    def __init__(self, kind: UploadKind, layout: Layout) -> None:
        self._kind, self._layout = kind, layout
        self._parts: list[Upload] = []

    def add(self, arrays: Sequence[NDArray[Any]]) -> None:
        named = self._kind.named([np.asarray(array) for array in arrays], self._layout)
        self._parts.append(self._kind.decode(named, self._layout, [0], np.ones(1), [{}], cohort=False))

    def upload(
        self, client_ids: list[int], num_examples: NDArray[np.float64], metrics: list[dict[str, float]]
    ) -> Upload:
        joined = self._kind.join(self._parts, self._layout)
        joined.client_ids, joined.num_examples, joined.metrics = client_ids, num_examples, metrics
        return joined


def dense_mixture(benign: UploadRound, clients: list[int]) -> Callable[[torch.Tensor], torch.Tensor]:
    """The (n, d) rows of a round in which some clients' rows are crafted; see `UploadKind.mixture`."""
    order = {c: i for i, c in enumerate(sorted([*benign.client_ids, *clients]))}
    theirs = [order[c] for c in clients]
    rows: list[torch.Tensor] = []

    def gradients(crafted: torch.Tensor) -> torch.Tensor:
        if not rows:  # few attacks ask
            known = benign.matrix()
            rows.append(known.new_empty(len(order), crafted.shape[1]))
            rows[0][[order[c] for c in benign.client_ids]] = known
        rows[0][theirs] = crafted.to(rows[0])
        return rows[0]

    return gradients
