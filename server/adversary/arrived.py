"""What arrived in a round, sorted into Byzantine and benign clients."""

from collections.abc import Callable, Collection
from functools import cached_property

from byzflower.uploads.base import Upload
from byzflower.uploads.round import UploadRound


class Arrived:
    """A round's well-formed uploads, and what they are as rows, where that is needed.

    Attributes:
        uploads: as they came.
        clients: ids of all clients in them.
        byzantine: ids of the Byzantine ones, ascending.
    """

    def __init__(
        self,
        uploads: list[Upload],
        byzantine: Collection[int],
        rows: Callable[[list[Upload]], UploadRound],
    ) -> None:
        """Sort clients into Byzantine and benign ones.

        Args:
            uploads: as they came.
            byzantine: ids that are Byzantine.
            rows: makes rows of uploads.
        """
        self.uploads = uploads
        self.clients = [client for upload in uploads for client in upload.client_ids]
        self.byzantine = sorted({*self.clients}.intersection(byzantine))
        self._members, self._rows = frozenset(self.byzantine), rows

    @cached_property
    def benign(self) -> UploadRound:
        """The benign clients' round."""
        return self._rows(self.part(byzantine=False))

    @cached_property
    def attackers(self) -> UploadRound:
        """The Byzantine clients' round, as they sent it."""
        return self._rows(self.part(byzantine=True))

    @cached_property
    def everybody(self) -> UploadRound:
        """The whole round."""
        return self._rows(self.uploads)

    def part(self, *, byzantine: bool) -> list[Upload]:
        """The uploads of the Byzantine, or of the benign clients."""
        parts = []
        for upload in self.uploads:
            mine = [i for i, c in enumerate(upload.client_ids) if (c in self._members) == byzantine]
            if len(mine) == len(upload):
                parts.append(upload)
            elif mine:
                parts.append(upload.part(mine))
        return parts

    def sizes(self) -> dict[int, float]:
        """What each client reports as its size."""
        return {
            client: size
            for upload in self.uploads
            for client, size in zip(upload.client_ids, upload.num_examples, strict=True)
        }
