"""A node without a SuperNode: speaks Flower's Fleet API itself, over gRPC, on 127.0.0.1.

It costs milliseconds instead of processes, and may send what Flower's own SuperNode would not.
"""

from types import TracebackType
from typing import Any, Self

from flwr.client.grpc_rere_client.connection import grpc_request_response
from flwr.common import Message, RecordDict
from flwr.common.inflatable import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.common.inflatable_utils import pull_objects
from flwr.common.retry_invoker import make_simple_grpc_retry_invoker

from byzflower.flower.compat import set_message_id


class RawNode:
    """One registered node; use it as a context manager."""

    def __init__(self, address: str) -> None:
        """Prepare a node of the SuperLink whose Fleet API has this address."""
        self._connection = grpc_request_response(address, True, make_simple_grpc_retry_invoker())

    def __enter__(self) -> Self:
        self.node_id, self._receive, self._send, _, _, self._pull, self._push, self._confirm = (
            self._connection.__enter__()
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.__exit__(kind, error, trace)

    def receive(self, *, fetch: bool = True) -> Message | None:
        """The next message, or None; its content is fetched and forgotten, or is not even fetched."""
        received = self._receive()
        if received is None:
            return None
        message, tree = received
        run_id = message.metadata.run_id
        if fetch:
            ids = [own.object_id for own in iterate_object_tree(tree)]
            pull_objects(ids, lambda object_id: self._pull(run_id, object_id), initial_backoff=0.1)
        self._confirm(run_id, message.metadata.message_id)
        return message  # type: ignore[no-any-return]

    def reply(
        self, message: Message, content: RecordDict, *, upload: bool = True, sender: Any = None
    ) -> None:
        """Answer a message.

        Args:
            message: what `receive` gave.
            content: of the reply.
            upload: send the content's objects, too, not only announce them.
            sender: node id to write into the reply that the server rebuilds, instead of one's own.
        """
        answer = Message(content, reply_to=message)
        honest = answer.metadata.src_node_id
        if sender is not None:
            answer.metadata.__dict__["_src_node_id"] = sender
        set_message_id(answer, answer.object_id)
        with no_object_id_recompute():
            tree, objects = get_object_tree(answer), get_all_nested_objects(answer)
            contents = {object_id: own.deflate() for object_id, own in objects.items()}
        answer.metadata.__dict__["_src_node_id"] = honest
        wanted = self._send(answer, tree, 0.0)
        for object_id in wanted if upload else ():
            self._push(message.metadata.run_id, object_id, contents[object_id])
