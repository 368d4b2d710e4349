"""A fifth kind of upload, as somebody else's package would have it: one bit for each scalar of the update."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from byzflower.uploads import UPLOADS, Broadcast, Forged, Layout, Rejected, Upload, UploadKind
from byzflower.uploads.dense import DenseRound
from byzflower.uploads.round import Memory

BITS = "signs"


@dataclass
class SignUpload(Upload):
    """Signs of k clients' updates.

    Attributes:
        signs: (k, width) True where the model grew.
    """

    kind: ClassVar[str] = "signs"

    signs: NDArray[np.bool_]

    def take(self, indices: list[int]) -> "SignUpload":
        """Return the uploads of the clients at these positions."""
        ids, metrics = [self.client_ids[i] for i in indices], [self.metrics[i] for i in indices]
        return SignUpload(ids, self.num_examples[indices], metrics, self.signs[indices])

    def payload(self, layout: Layout, *, cohort: bool) -> dict[str, NDArray[Any]]:
        """Eight signs in a byte."""
        return {BITS: np.packbits(self.signs if cohort else self.signs[0], axis=-1)}

    def client_bytes(self, layout: Layout) -> list[int]:
        """A bit for each scalar."""
        return [-(-layout.width // 8)] * len(self)


class Signs(UploadKind):
    """Clients send which way every scalar went; the server steps that way by `step`."""

    name: ClassVar[str] = "signs"

    def __init__(self, step: float = 0.01) -> None:
        """Choose the length of a step in every scalar."""
        self.length = step

    def names(self, layout: Layout) -> tuple[str, ...]:
        """One array."""
        return (BITS,)

    def encode(
        self, learned: Sequence[NDArray[Any]], sent: Sequence[NDArray[Any]], model: Layout, memory: Memory
    ) -> list[NDArray[Any]]:
        """The bits of a trained model."""
        return [np.packbits(model.row(learned) > model.joined(sent))]

    def join(self, uploads: Sequence[SignUpload], layout: Layout) -> SignUpload:
        """All clients of several uploads."""
        return SignUpload(
            [client for upload in uploads for client in upload.client_ids],
            np.concatenate([np.empty(0), *(upload.num_examples for upload in uploads)]),
            [metrics for upload in uploads for metrics in upload.metrics],
            np.concatenate([np.empty((0, layout.width), bool), *(upload.signs for upload in uploads)]),
        )

    def decode(
        self,
        arrays: Mapping[str, NDArray[Any]],
        layout: Layout,
        client_ids: list[int],
        num_examples: NDArray[np.float64],
        metrics: list[dict[str, float]],
        *,
        cohort: bool,
    ) -> SignUpload:
        """Bits of the right number."""
        bits = -(-layout.width // 8)
        shape = (len(client_ids), bits) if cohort else (bits,)
        if tuple(arrays) != (BITS,) or arrays[BITS].shape != shape or arrays[BITS].dtype != np.uint8:
            raise Rejected(f"signs are one array {BITS!r} of bytes {shape}")
        signs = np.unpackbits(arrays[BITS].reshape(-1, bits), axis=1, count=layout.width).astype(np.bool_)
        return SignUpload(client_ids, num_examples, metrics, signs)

    def rows(self, uploads: Sequence[SignUpload], sent: Broadcast, server_lr: float) -> DenseRound:
        """A row of steps for each client; buffers stay."""
        upload = self.join(uploads, sent.layout)
        order = np.argsort(np.array(upload.client_ids, np.uint64))
        steps = np.where(upload.signs[order], -self.length, self.length).astype(sent.layout.row_dtype)
        steps[:, sent.layout.d :] = 0
        ids = [upload.client_ids[i] for i in order]
        return DenseRound(ids, upload.num_examples[order], [], sent.layout.d, torch.from_numpy(steps))

    def forge(self, upload: SignUpload, forged: Forged, sent: Broadcast) -> SignUpload:
        """The signs of crafted rows."""
        signs = upload.signs.copy()
        for i, position in forged.positions(upload.client_ids):
            signs[i, : sent.layout.d] = forged.rows[position].numpy() < 0
        return SignUpload(upload.client_ids, upload.num_examples, upload.metrics, signs)


UPLOADS.register("signs", Signs)
