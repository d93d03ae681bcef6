"""What a node may push: one reply, in its own name."""

from collections.abc import Callable
from typing import Any

from fastapi import HTTPException, status
from flwr.proto.fleet_pb2 import PushMessagesRequest

Push = Callable[..., Any]


def own_replies_only(push: Push) -> Push:
    """Return Flower's handler of pushed messages with the check that it lacks.

    Flower verifies who pushes, and not what the message says of itself. A node could name another
    as its source, or the SuperLink: then it would be stored as an instruction to another node.
    """

    def checked(request: PushMessagesRequest, state: Any) -> Any:
        check_push(request)
        return push(request=request, state=state)

    return checked


def check_push(request: PushMessagesRequest) -> None:
    """Refuse all but one reply of the node that pushes.

    Raises:
        HTTPException: 403, with the reason.
    """
    node = request.node.node_id
    for message in request.messages_list:
        metadata = message.metadata
        if metadata.src_node_id != node or not metadata.reply_to_message_id:
            raise HTTPException(
                status.HTTP_403_FORBIDDEN, "a node pushes replies in its own name, and nothing else"
            )
    if not len(request.messages_list) == len(request.message_object_trees) == 1:
        raise HTTPException(status.HTTP_403_FORBIDDEN, "a node pushes one reply at a time")
