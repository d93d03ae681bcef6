"""Flower's messages as they travel: a header, a tree of objects, and the objects."""

from dataclasses import dataclass

from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents


@dataclass(frozen=True)
class Envelope:
    """One message, in pieces."""

    header: MessageProto
    """The message without its content."""
    tree: ObjectTree
    """Digests of all objects; the root is the message itself."""
    objects: dict[str, bytes]
    """Every object by its digest."""


def seal(message: Message) -> Envelope:
    """Take a message apart, and give it its id."""
    message.metadata.__dict__["_message_id"] = message.object_id
    header = message_to_proto(remove_content_from_message(message))
    with no_object_id_recompute():
        tree = get_object_tree(message)
        objects = {
            digest: part.deflate() for digest, part in get_all_nested_objects(message).items()
        }
    return Envelope(header, tree, objects)


def open_(root: str, objects: dict[str, bytes]) -> Message:
    """Put a message together again.

    Args:
        root: its id.
        objects: every object of it by digest.

    Raises:
        Exception: of many kinds, where an object is missing or damaged.
    """
    message = inflate_object_from_contents(root, dict(objects))
    if not isinstance(message, Message):
        raise TypeError(f"it is a {type(message).__name__} and no message")
    # Not part of what travels.
    message.metadata.__dict__["_message_id"] = root
    return message
