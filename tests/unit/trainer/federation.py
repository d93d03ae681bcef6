"""Sites in this process: the real ClientApp, on shards of the real dealer."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.common.serde import (
    context_from_proto,
    context_to_proto,
    message_from_proto,
    message_to_proto,
)
from flwr.serverapp import Grid

from cloister_client.app import app
from cloister_client.site import SHARD_DIR
from cloister_dealer.deal import deal
from cloister_dealer.settings import Settings as DealerSettings

Answer = Callable[[Message], Message]


class LostError(Exception):
    """Raised by a site that is gone: no reply comes, and no error."""


class Site:
    """One site, which answers from its folder."""

    def __init__(self, folder: Path, **node_config: bool) -> None:
        config: dict[str, bool | float | int | str] = {SHARD_DIR: str(folder), **node_config}
        self._context = Context(1, 1, config, RecordDict(), {})

    def __call__(self, message: Message) -> Message:
        reply = app(message, self._context)
        # Between two messages a site's context lies with its node.
        self._context = context_from_proto(context_to_proto(self._context))
        return reply


def deal_sites(folder: Path, settings: DealerSettings) -> dict[int, Path]:
    """Deal into ``folder``; return every site's folder by its node's id, from 1."""
    dealt = deal(
        settings.model_copy(
            update={"shards_dir": folder / "shards", "held_out_dir": folder / "held-out"}
        )
    )
    sites = {}
    for node in range(1, settings.shards + 1):
        sites[node] = folder / str(node)
        sites[node].mkdir()
        shutil.copy(dealt.shard_path(folder / "shards", node - 1), sites[node] / "shard.npz")
        (sites[node] / "schema.json").write_text(dealt.data.model_dump_json())
    return sites


class Clock:
    """Time that passes only when something sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class LocalGrid(Grid):
    """Hands every message to the site it is for, and an error where the site raises.

    Attributes:
        online: nodes that are; all there are where it is None.
        silent: nodes that are online and do not reply in time.
        sent: every message that was sent.
    """

    def __init__(self, sites: dict[int, Answer]) -> None:
        self.sites = sites
        self.online: set[int] | None = None
        self.silent: set[int] = set()
        self.sent: list[Message] = []
        self._replies: dict[str, Message] = {}

    def get_node_ids(self) -> Iterable[int]:
        return list(self.sites if self.online is None else self.online)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return [self._push(message) for message in messages]

    def _push(self, message: Message) -> str:
        # As Flower's grid does.
        message.metadata.__dict__["_message_id"] = message.object_id
        message_id, node = message.metadata.message_id, message.metadata.dst_node_id
        self.sent.append(message)
        if node not in self.silent:
            # A site has a message of its own, as after a way through a network.
            received = message_from_proto(message_to_proto(message))
            try:
                self._replies[message_id] = self.sites[node](received)
            except LostError:
                pass
            except Exception as error:  # noqa: BLE001 - as Flower does with a ClientApp
                self._replies[message_id] = Message(Error(1, str(error)), reply_to=message)
        return message_id

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._replies.pop(key) for key in list(message_ids) if key in self._replies]

    # What the trainer does not use.

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        raise NotImplementedError

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *_: Any, **__: Any) -> Message:
        raise NotImplementedError
