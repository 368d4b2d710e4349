"""A Grid that runs the ClientApp in the server's own process: no Ray, no SuperLink, no start-up."""

import itertools
import logging
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from flwr.clientapp import ClientApp
from flwr.common import Context, Message, RecordDict
from flwr.server import Grid

from byzflower.flower.compat import (
    empty_run,
    enter_local_run,
    error_reply,
    own_copy,
    rebuilt_reply,
    set_message_id,
    set_message_origin,
)
from byzflower.flower.text import error_text, frames_text
from byzflower.numerics.cores import usable_cores

_RUN_ID = 1
_SERVER_NODE = 1
# As Flower's own, node ids are no small numbers: none is what a client calls itself.
_FIRST_NODE = 1 << 40


class InlineGrid(Grid):
    """Virtual nodes as plain objects, served by a few threads.

    Messages, contexts and errors are what Flower's own engine would deliver; arrays are passed by
    reference, read-only. A client that never returns holds its thread until it does.
    """

    def __init__(
        self,
        client_app: ClientApp,
        num_nodes: int,
        run_config: dict[str, Any] | None = None,
        num_workers: int | None = None,
    ) -> None:
        """Make `num_nodes` virtual nodes with ascending ids and partition ids from 0.

        Args:
            client_app: the app that every node runs.
            num_nodes: number of nodes.
            run_config: each node's `Context.run_config`.
            num_workers: threads; default one per CPU.
        """
        enter_local_run(_RUN_ID)
        self._app = client_app
        self._contexts = {
            _FIRST_NODE + i: Context(
                run_id=_RUN_ID,
                node_id=_FIRST_NODE + i,
                node_config={"partition-id": i, "num-partitions": num_nodes},
                state=RecordDict(),
                run_config=dict(run_config or {}),
            )
            for i in range(num_nodes)
        }
        self._pool = ThreadPoolExecutor(num_workers or usable_cores(), thread_name_prefix="client")
        self._ids = itertools.count(1)
        self._replies: dict[str, Future[Message | None]] = {}

    def set_run(self, run: Any) -> None:
        """Nothing to do: there is one run."""

    @property
    def run(self) -> Any:
        """The run, of which only the id is known."""
        return empty_run(_RUN_ID)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Make a message, as Flower's deprecated method of this name does."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Ids of all nodes."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Start work on messages."""
        ids = []
        for message in messages:
            message_id = str(next(self._ids))
            set_message_id(message, message_id)
            set_message_origin(message, _RUN_ID, _SERVER_NODE)
            self._replies[message_id] = self._pool.submit(self._serve, message)
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Fetch the replies that are ready."""
        ready = [i for i in message_ids if i in self._replies and self._replies[i].done()]
        replies = [self._replies.pop(i).result() for i in ready]
        return [reply for reply in replies if reply is not None]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages and wait for their replies, at most `timeout` seconds."""
        ids = list(self.push_messages(messages))
        started = time.monotonic()
        _, late = wait([self._replies[i] for i in ids], timeout)
        if late:
            waited = time.monotonic() - started
            logging.getLogger("flwr").warning("%d nodes did not reply within %.0f s", len(late), waited)
        replies = self.pull_messages(ids)
        for late_id in ids:
            if late_id in self._replies:
                self._replies.pop(late_id).cancel()  # what has not begun need not
        return replies

    def close(self) -> None:
        """End the threads, without waiting for clients that hang."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _serve(self, message: Message) -> Message | None:
        """Let a node answer; whatever it raises or returns that is no Message is its own error reply."""
        node = message.metadata.dst_node_id
        try:
            answer: object = self._app(own_copy(message), self._contexts[node])
            if answer is None:  # to Flower's engine, too, no reply means silence
                return None
            reply = rebuilt_reply(message, answer)
        except BaseException as error:  # nobody's Ctrl-C: that is raised in the main thread
            text = "The client of node %d raised %s\n%s"
            logging.getLogger("flwr").warning(text, node, error_text(error), frames_text(error))
            reply = error_reply(message, error)
        set_message_id(reply, f"reply-{message.metadata.message_id}")
        return reply
