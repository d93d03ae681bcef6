"""What a node may push."""

from typing import Any

import pytest
from fastapi import HTTPException
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import Message, Metadata, ObjectTree
from flwr.proto.node_pb2 import Node

from cloister_server.replies import own_replies_only

SUPERLINK = 1


def message(source: int = 7, replies_to: str = "asked") -> Message:
    return Message(metadata=Metadata(src_node_id=source, reply_to_message_id=replies_to))


def push(*messages: Message, trees: int | None = None) -> PushMessagesRequest:
    """Push as node 7, and return what reached Flower."""
    reached: list[PushMessagesRequest] = []

    def stored(request: PushMessagesRequest, state: Any) -> Any:
        assert state == "state"
        reached.append(request)

    request = PushMessagesRequest(
        node=Node(node_id=7),
        messages_list=messages,
        message_object_trees=[ObjectTree()] * (len(messages) if trees is None else trees),
    )
    own_replies_only(stored)(request=request, state="state")
    return reached[0]


def test_a_reply_of_its_own_passes() -> None:
    assert push(message()).messages_list[0].metadata.src_node_id == 7


@pytest.mark.parametrize(
    "hostile",
    [message(source=SUPERLINK), message(source=8), message(replies_to=""), message(1, "")],
    ids=["as the SuperLink", "as another node", "an instruction", "an instruction as it"],
)
def test_nothing_else_does(hostile: Message) -> None:
    for messages in ([hostile], [message(), hostile], [hostile, message()]):
        with pytest.raises(HTTPException, match="in its own name") as refused:
            push(*messages)
        assert refused.value.status_code == 403


def test_it_is_one_at_a_time_with_its_tree() -> None:
    for messages, trees in (([], 0), ([message(), message()], 2), ([message()], 0)):
        with pytest.raises(HTTPException, match="one reply at a time"):
            push(*messages, trees=trees)
