"""What a node is given when an answer to it is lost, from Flower's own database."""

from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Message, Metadata, RecordDict
from flwr.app.message.message import make_message
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.proto.node_pb2 import Node
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.date import now
from flwr.supercore.inflatable.inflatable_object import get_object_tree
from flwr.supercore.object_store.sql_object_store import SqlObjectStore
from flwr.superlink.federation.noop_federation_manager import NoOpFederationManager
from flwr.superlink.servicer.fleet import fleet_handlers

from cloister_server.deliveries import until_confirmed

HOUR = 3600.0


class SuperLink:
    """The part of a SuperLink that nodes ask for messages; its state is in a file."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self.start()
        self.nodes = [self._node(number) for number in range(2)]
        self.run = self.state.create_run(
            None, None, None, {}, NOOP_FEDERATION_ID, None, None, TaskType.SERVER_APP
        )

    def start(self) -> None:
        """Begin anew with the database, as after it was killed."""
        store = SqlObjectStore(str(self.database))
        store.initialize()
        self.state = SqlLinkState(str(self.database), NoOpFederationManager(), store)
        self.state.initialize()

    def _node(self, number: int) -> int:
        node = self.state.create_node("owner", "owner", bytes([number]), HOUR)
        assert self.state.activate_node(node, HOUR)
        return node

    def send(self, node: int) -> Message:
        """Have the trainer send a message to a node."""
        content = RecordDict({"config": ConfigRecord({"round": 1})})
        metadata = Metadata(
            run_id=self.run,
            message_id="",
            src_node_id=SUPERLINK_NODE_ID,
            dst_node_id=node,
            reply_to_message_id="",
            group_id="",
            created_at=now().timestamp(),
            ttl=HOUR,
            message_type="train",
        )
        message = make_message(metadata, content)
        metadata.__dict__["_message_id"] = message.object_id
        session = self.state.start_session(self.run)
        stored, _ = self.state.store_message_and_object_tree(
            message, get_object_tree(message), session
        )
        assert stored
        return message

    def pull(self, node: int) -> list[str]:
        """Ask as a node does, and return the ids of what it is given."""
        pulled = until_confirmed(fleet_handlers.pull_messages)(
            request=PullMessagesRequest(node=Node(node_id=node)),
            state=self.state,
            store=self.state.object_store,
        )
        assert len(pulled.message_object_trees) == len(pulled.messages_list)
        return [message.metadata.message_id for message in pulled.messages_list]

    def confirm(self, message: Message) -> None:
        """Do what Flower's handler does when a node confirms a message."""
        self.state.object_store.delete(message.metadata.message_id)

    def reply(self, message: Message) -> None:
        """Have a node answer, without the content."""
        reply = Message(RecordDict(), reply_to=message)
        reply.metadata.__dict__["_message_id"] = reply.object_id
        assert self.state.store_message_res(reply) is not None


@pytest.fixture
def superlink(tmp_path: Path) -> SuperLink:
    return SuperLink(tmp_path / "superlink.db")


@pytest.mark.parametrize("killed", [False, True])
def test_a_message_that_did_not_arrive_is_given_again(superlink: SuperLink, killed: bool) -> None:
    node, other = superlink.nodes
    message = superlink.send(node)
    assert superlink.pull(node) == [message.metadata.message_id]
    if killed:
        superlink.start()
    assert superlink.pull(other) == []
    assert superlink.pull(node) == [message.metadata.message_id]


def test_what_one_node_asks_changes_nothing_of_anothers(superlink: SuperLink) -> None:
    node, other = superlink.nodes
    superlink.send(node)
    superlink.pull(node)
    superlink.pull(other)
    # As Flower itself has it, the message is still delivered.
    assert superlink.state.get_message_ins(node, 1) == []


def test_one_that_was_confirmed_is_not(superlink: SuperLink) -> None:
    node, _ = superlink.nodes
    message = superlink.send(node)
    superlink.pull(node)
    superlink.start()
    superlink.confirm(message)
    assert superlink.pull(node) == []
    # Flower would forget a message without its parts, and then refuse the reply to it.
    superlink.reply(message)
    assert superlink.pull(node) == []
    assert len(superlink.state.get_message_res({message.metadata.message_id}, superlink.run)) == 1


def test_nor_is_one_that_was_answered(superlink: SuperLink) -> None:
    node, _ = superlink.nodes
    message = superlink.send(node)
    superlink.pull(node)
    superlink.reply(message)
    assert superlink.pull(node) == []


def test_the_lost_one_comes_before_those_sent_later(superlink: SuperLink) -> None:
    node, _ = superlink.nodes
    lost = superlink.send(node)
    superlink.pull(node)
    later = superlink.send(node)
    assert superlink.pull(node) == [lost.metadata.message_id]
    superlink.confirm(lost)
    assert superlink.pull(node) == [later.metadata.message_id]
