"""One message through a ClientApp, from bytes to bytes: what a worker's child does."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import NewType

import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.recorddict_pb2 import RecordDict as RecordDictProto
from flwr.supercore.inflatable.inflatable_object import get_object_id
from pydantic import BaseModel

from cloister_client.data import kept
from cloister_client.node.envelope import Envelope, open_, seal
from cloister_client.node.worker import Work
from cloister_client.site import NodeConfig, Site
from cloister_shared.errors import CloisterError
from cloister_shared.logs import about

ClientApp = Callable[[Message, Context], Message]
State = NewType("State", bytes)
"""What a ClientApp keeps from one message of a run to the next, in Flower's form."""

NO_STATE = State(b"")
OUT_OF_MEMORY = "there is not enough memory for it at this site"

log = logging.getLogger(__name__)


class AppFailedError(Exception):
    """The ClientApp raised; the message is the reason, for people, and has no data in it."""


@dataclass(frozen=True)
class Task:
    """One message for the ClientApp."""

    run_id: int
    node_id: int
    message_id: str
    objects: dict[str, bytes]
    """The message's objects by digest."""
    state: State
    node_config: NodeConfig


class _Facts(BaseModel):
    run_id: int
    node_id: int
    message_id: str
    node_config: NodeConfig


def to_job(task: Task) -> list[bytes]:
    """Return what a worker is given for a task."""
    facts = _Facts(
        run_id=task.run_id,
        node_id=task.node_id,
        message_id=task.message_id,
        node_config=task.node_config,
    )
    return [facts.model_dump_json().encode(), task.state, *task.objects.values()]


def from_result(result: list[bytes]) -> tuple[Envelope, State]:
    """Return the reply and the new state from what a worker returned.

    Raises:
        AppFailedError: the ClientApp raised.
    """
    reason, *parts = result
    if reason:
        raise AppFailedError(reason.decode())
    header, tree, state, *objects = parts
    reply = Envelope(
        MessageProto.FromString(header), ObjectTree.FromString(tree), _by_digest(objects)
    )
    return reply, State(state)


def work_of(app: ClientApp) -> Work:
    """Return the work that takes a message through a ClientApp."""

    def work(job: list[bytes]) -> list[bytes]:
        with about(run_id=_facts(job).run_id):
            return answer(job)

    def answer(job: list[bytes]) -> list[bytes]:
        # Every child begins with the same generator, and rounding at random is to be at random.
        np.random.seed()  # noqa: NPY002 - Flower draws from the global generator
        try:
            reply, state = _reply(app, job)
        except CloisterError as error:
            log.warning("no result: %s", error)
            return [str(error).encode()]
        except MemoryError:
            log.warning("no result: %s", OUT_OF_MEMORY)
            return [OUT_OF_MEMORY.encode()]
        except Exception as error:
            # Its text may quote a value, which must not leave the site.
            log.exception("the ClientApp failed")
            return [f"it failed with {type(error).__name__}; the site's log has more".encode()]
        return [
            b"",
            reply.header.SerializeToString(),
            reply.tree.SerializeToString(),
            recorddict_to_proto(state).SerializeToString(),
            *reply.objects.values(),
        ]

    return work


def keep_rows(job: list[bytes]) -> None:
    """Keep the site's rows in memory: every message of a run is about the same."""
    site = _site(job)
    kept.SHARD.keep(site.shard_dir, site.columns)


def forget_other_rows(job: list[bytes]) -> None:
    """Free the memory of rows that are not the site's any more: a child reads the others."""
    site = _site(job)
    kept.SHARD.forget_unless_same(site.shard_dir, site.columns)


def _facts(job: list[bytes]) -> _Facts:
    described, *_ = job
    return _Facts.model_validate_json(described)


def _site(job: list[bytes]) -> Site:
    return Site.of(_facts(job).node_config)


def _reply(app: ClientApp, job: list[bytes]) -> tuple[Envelope, RecordDict]:
    _, state, *objects = job
    facts = _facts(job)
    message = open_(facts.message_id, _by_digest(objects))
    context = Context(
        run_id=facts.run_id,
        node_id=facts.node_id,
        node_config=dict(facts.node_config),
        state=recorddict_from_proto(RecordDictProto.FromString(state)),
        run_config={},
    )
    return seal(app(message, context)), context.state


def _by_digest(objects: list[bytes]) -> dict[str, bytes]:
    return {get_object_id(content): content for content in objects}
