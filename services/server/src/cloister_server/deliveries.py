"""What a node is given: the next message, or once more the one that did not reach it."""

from collections.abc import Callable
from typing import Any

from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore.object_store.object_store import ObjectStore
from flwr.supercore.state.schema.linkstate_models import MessageIns, MessageRes
from flwr.supercore.state.schema.objectstore_models import StoredObject
from flwr.supercore.utils import uint64_to_int64
from sqlalchemy import exists, select, update

Pull = Callable[..., Any]


def until_confirmed(pull: Pull) -> Pull:
    """Return Flower's handler of a node's question for messages, which repeats what got lost.

    Flower notes a message as delivered before it answers. Where the answer does not arrive, since
    the SuperLink is killed or the connection breaks, the node is never given that message.

    A node works on one message after the other: it confirms that one is there, with all its parts,
    before it works on it, and asks for the next when that is done. So what it was given and did not
    confirm by then has not been worked on, and it is the same message, with the same id, that it is
    given again. No work is asked for twice, which secure aggregation depends on.
    """

    def repeating(request: PullMessagesRequest, state: SqlLinkState, store: ObjectStore) -> Any:
        recall(state, request.node.node_id)
        return pull(request=request, state=state, store=store)

    return repeating


def recall(state: SqlLinkState, node_id: int) -> None:
    """Note as not delivered what a node was given, and has neither confirmed nor answered.

    Args:
        state: with the database, which holds the parts of messages too.
        node_id: of the node, as the SuperLink counts them.
    """
    lost = select(MessageIns.message_id).where(
        MessageIns.dst_node_id == uint64_to_int64(node_id),
        MessageIns.delivered_at != "",
        # Confirming a message deletes its parts.
        exists().where(StoredObject.object_id == MessageIns.message_id),
        ~exists().where(MessageRes.reply_to_message_id == MessageIns.message_id),
    )
    # Nodes ask all the time, and what writes waits for the database's lock: so this looks first, in
    # a transaction of its own, since SQLite does not let one that has read write after others.
    with state.session() as session:
        if not session.scalars(lost).all():
            return
    with state.session() as session:
        session.execute(
            update(MessageIns).where(MessageIns.message_id.in_(lost)).values(delivered_at="")
        )
