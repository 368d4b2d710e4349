"""When to write a checkpoint."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from byzflower.server.files import RunFolderError

# Seconds after a checkpoint that could not be written, until the next try.
_RETRY = 30.0
_LOG = logging.getLogger(__name__)


class CheckpointBudget:
    """Lets checkpoints take at most a twentieth of a run's time.

    Long rounds are saved every time; fast ones with a large state are not slowed down. A full disk does not
    end a run: what could not be saved is logged, and tried again later.

    Attributes:
        saved_round: the last round that was saved.
    """

    def __init__(self, saved_round: int) -> None:
        """Start after a round that is saved already; 0 if none is."""
        self.saved_round = saved_round
        self._next = 0.0

    def allows(self) -> bool:
        """Whether a checkpoint may be written now."""
        return time.monotonic() >= self._next

    @contextmanager
    def saving(self, server_round: int) -> Iterator[None]:
        """Time the writing of this round's checkpoint, and log the failure if it cannot be written."""
        started, pause = time.monotonic(), 0.0
        try:
            yield
            self.saved_round = server_round
        except RunFolderError as error:
            pause = _RETRY
            _LOG.warning(
                "round %d is not saved (%s); if the run ends now, it goes on after round %d",
                *(server_round, error, self.saved_round),
            )
        ended = time.monotonic()
        self._next = ended + max(20 * (ended - started), pause)
