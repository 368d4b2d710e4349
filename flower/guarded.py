"""A Grid for real nodes of which some crash, hang, forge senders or send invalid messages."""

import queue
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

from flwr.common import Message, RecordDict
from flwr.server import Grid

from byzflower.flower.compat import is_remote, lost_reply, set_message_origin

_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 2.0


def guarded(grid: Grid) -> Grid:
    """Wrap a Grid whose nodes are other processes in a `GuardedGrid`; others are left as they are."""
    return GuardedGrid(grid) if is_remote(grid) else grid


class GuardedGrid(Grid):
    """A Grid on which no node can stop the others from being heard.

    With Flower's own, a node that acknowledges a message too early ends the run, as does a reply that
    cannot be rebuilt; a reply of which a part never arrives holds up all others; the sender's id is what the
    sender wrote into the reply; and errors that the SuperLink reports (a node that is gone, say) have no
    sender. Here every message is sent and every reply fetched separately: it belongs to the node that was
    asked, and if it cannot be rebuilt that is this node's error. Replies are polled several times a second
    instead of every three seconds.
    """

    def __init__(self, grid: Grid) -> None:
        """Wrap a Grid."""
        self._grid = grid

    def set_run(self, *args: Any) -> None:
        """Delegate."""
        self._grid.set_run(*args)

    @property
    def run(self) -> Any:
        """Delegate."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Delegate."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Delegate."""
        ids: Iterable[int] = self._grid.get_node_ids()
        return ids

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Delegate."""
        ids: Iterable[str] = self._grid.push_messages(messages)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Delegate."""
        replies: Iterable[Message] = self._grid.pull_messages(message_ids)
        return replies

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages and wait for their replies, at most `timeout` seconds.

        Returns:
            At most one reply per message, in the order in which they came.
        """
        sent: dict[str, Message] = {}
        lost: list[Message] = []
        for message in messages:  # separately, as a node can make sending to it fail
            try:
                sent.update((own, message) for own in self.push_messages([message]) if own)
            except Exception as error:
                lost.append(lost_reply(message, error))
        if lost and not sent:
            raise ConnectionError(f"nothing could be sent to any node: {lost[0].error.reason}")
        return lost + _Exchange(self._grid, sent, timeout).replies()


class _Exchange:
    """Fetches the replies to some messages.

    A fetch cannot be interrupted, and may hang for hours if a node dies while sending. So threads fetch, and
    when all of them seem to hang, another one is started.
    """

    def __init__(self, grid: Grid, sent: dict[str, Message], timeout: float | None) -> None:
        self._grid = grid
        self._sent = sent
        self._waiting = deque(sent)
        self._arrived: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._deadline = float("inf") if timeout is None else time.monotonic() + timeout
        self._over = threading.Event()
        self._fetching: dict[int, float] = {}

    def replies(self) -> list[Message]:
        replies: list[Message] = []
        while len(replies) < len(self._sent) and time.monotonic() < self._deadline:
            if self._waiting and self._all_hang():
                threading.Thread(target=self._work, daemon=True, name="fetch").start()
            try:
                replies.append(self._arrived.get(timeout=min(_POLL_SECONDS, self._left())))
            except queue.Empty:
                continue
        self._over.set()
        return replies

    def _left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    def _all_hang(self) -> bool:
        late = time.monotonic() - _PATIENCE_SECONDS
        return all(started < late for started in list(self._fetching.values()))

    def _work(self) -> None:
        me, fruitless = threading.get_ident(), 0
        self._fetching[me] = time.monotonic()
        while not self._over.is_set():
            try:
                message_id = self._waiting.popleft()
            except IndexError:
                break
            self._fetching[me] = time.monotonic()
            reply = self._fetch(message_id)
            if reply is not None:
                self._arrived.put(reply)
                fruitless = 0
                continue
            self._waiting.append(message_id)
            fruitless += 1
            if fruitless >= len(self._waiting):  # none of them has arrived yet
                self._fetching[me] = time.monotonic()
                self._over.wait(_POLL_SECONDS)
                fruitless = 0
        self._fetching.pop(me, None)

    def _fetch(self, message_id: str) -> Message | None:
        message = self._sent[message_id]
        try:
            replies = list(self._grid.pull_messages([message_id]))
        except Exception as error:  # whatever Flower makes of a hostile reply
            return lost_reply(message, error)
        if not replies:
            return None
        set_message_origin(replies[0], message.metadata.run_id, message.metadata.dst_node_id)
        return replies[0]
