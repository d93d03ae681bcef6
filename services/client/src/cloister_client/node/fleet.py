"""The SuperLink as this site's node sees it: Flower's Fleet API, with reasons for people."""

import logging
import random
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_private_key,
)
from flwr.app import Message
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL, TIMESTAMP_HEADER
from flwr.common.serde import message_from_proto
from flwr.proto.fab_pb2 import GetFabRequest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
    UnregisterNodeFleetRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supernode.fleet_http_client import FleetHttpClient
from pydantic import BaseModel, ValidationError

from cloister_client.joining.connection import Connection
from cloister_client.node.envelope import Envelope
from cloister_shared.errors import CloisterError

REQUEST_SECONDS = 30.0
GOODBYE_SECONDS = 1.5
"""Of each request when the node ends: nobody waits for a SuperLink that does not answer."""
HEARTBEAT_SECONDS = 20.0
"""Flower counts a node as offline after twice ``HEARTBEAT_DEFAULT_INTERVAL`` without one."""
FIRST_RETRY_SECONDS = 0.25
LAST_RETRY_SECONDS = 5.0
PUSHES = 3
"""Of a reply. A SuperLink that has stored a part of it, and was killed before it said so, refuses
the same part afterwards, and says what it lacks only when the reply begins anew."""
OBJECT_SECONDS = 120.0
"""How long to wait for an object that the server has announced and not yet sent."""
FIRST_OBJECT_RETRY_SECONDS = 0.05
LAST_OBJECT_RETRY_SECONDS = 1.0

_TEMPORARY = {
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
"""Of a SuperLink, or the proxy before it, that is starting, busy or gone for a while."""

Request = TypeVar("Request")
Response = TypeVar("Response")

log = logging.getLogger(__name__)


class RefusedError(CloisterError):
    """The SuperLink does not take this node, or not any more; the message says why."""


class RunOverError(Exception):
    """The run has ended: nothing more is to be done for it."""


class FailedRequestError(Exception):
    """The SuperLink refuses one request; the message is its reason."""


@dataclass(frozen=True)
class Pulled:
    """A message that was sent to this node, without its content."""

    message: Message
    tree: ObjectTree


class _Problem(BaseModel):
    detail: str


class _Signed:
    """Signs every request with the node's key, as Flower's own interceptor does.

    Importing that one takes in FastAPI, and 15 MB with it.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        self.public_key = key.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        now = datetime.now(UTC).isoformat()
        signature = self._key.sign(now.encode(), ec.ECDSA(hashes.SHA256()))
        context.request.headers.update(
            {
                TIMESTAMP_HEADER: now,
                FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(self.public_key).decode(),
                FLEET_HTTP_SIGNATURE_HEADER: b64encode(signature).decode(),
            }
        )
        return call_next(context)


class Fleet:
    """A node's connection, online while the context lasts.

    Requests are made again, for as long as it takes, while the SuperLink is not reached or says
    that it cannot answer now.
    """

    def __init__(self, connection: Connection, sleep: Callable[[float], None] = time.sleep) -> None:
        """Prepare; nothing is sent yet.

        Raises:
            CloisterError: the key or the CA file cannot be read.
        """
        self._superlink = connection.superlink
        self._registers = connection.insecure
        self._verify = _trusted(connection)
        self._signed = _Signed(_key(connection.key_path))
        self._sleep = sleep
        self._client = self._open(REQUEST_SECONDS)
        self._node = Node()
        self._ended = threading.Event()
        self._refused: RefusedError | None = None
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    @property
    def node_id(self) -> int:
        """The SuperLink's number of this node."""
        return self._node.node_id

    def __enter__(self) -> Self:
        """Come online.

        Raises:
            RefusedError: the SuperLink does not take the node.
        """
        key = self._signed.public_key
        try:
            if self._registers:
                self._call(self._client.RegisterNode, RegisterNodeFleetRequest(public_key=key))
            activated = self._call(
                self._client.ActivateNode,
                ActivateNodeRequest(public_key=key, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL),
            )
        except BaseException as error:
            self._client.close()
            if isinstance(error, FailedRequestError | RunOverError):
                raise RefusedError(
                    f"the SuperLink does not take this node ({error}): its key is not enrolled, "
                    "was revoked, or belongs to a node that is online or was until a minute ago"
                ) from None
            raise
        self._node = Node(node_id=activated.node_id)
        self._heart.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Go offline, and say so if the SuperLink listens."""
        self._ended.set()
        self._heart.join(GOODBYE_SECONDS)
        self._client.close()
        with suppress(httpx.HTTPError, ValueError), self._open(GOODBYE_SECONDS) as client:
            client.DeactivateNode(DeactivateNodeRequest(node_id=self.node_id))
            if self._registers:
                client.UnregisterNode(UnregisterNodeFleetRequest(node_id=self.node_id))

    def pull(self) -> Pulled | None:
        """Return the next message for this node, if there is one.

        Raises:
            RefusedError: the SuperLink does not know the node any more.
            FailedRequestError: it refuses for another reason.
        """
        try:
            pulled = self._call(self._client.PullMessages, PullMessagesRequest(node=self._node))
        except RunOverError as error:
            # There is no run in the question.
            raise FailedRequestError(str(error)) from None
        if not pulled.messages_list:
            return None
        return Pulled(message_from_proto(pulled.messages_list[0]), pulled.message_object_trees[0])

    def bundle_digest(self, run_id: int) -> str:
        """Return the SHA-256 of a run's bundle.

        Raises:
            RunOverError: the run has ended.
            FailedRequestError: it is none of this node's.
            RefusedError: the SuperLink does not know the node any more.
        """
        got = self._call(self._client.GetRun, GetRunRequest(node=self._node, run_id=run_id))
        return got.run.fab_hash

    def bundle(self, run_id: int, digest: str) -> bytes:
        """Return a run's bundle; raises as ``bundle_digest`` does."""
        got = self._call(
            self._client.GetFab, GetFabRequest(node=self._node, run_id=run_id, hash_str=digest)
        )
        return got.fab.content

    def objects(self, pulled: Pulled) -> dict[str, bytes]:
        """Return every object of a message by its digest.

        Raises:
            RunOverError: the run has ended.
            FailedRequestError: an object is not there, or does not come.
            RefusedError: the SuperLink does not know the node any more.
        """
        run_id = pulled.message.metadata.run_id
        digests = dict.fromkeys(part.object_id for part in iterate_object_tree(pulled.tree))
        return {digest: self._object(run_id, digest) for digest in digests}

    def _object(self, run_id: int, digest: str) -> bytes:
        request = PullObjectRequest(node=self._node, run_id=run_id, object_id=digest)
        deadline = time.monotonic() + OBJECT_SECONDS
        pause = FIRST_OBJECT_RETRY_SECONDS
        while True:
            got = self._call(self._client.PullObject, request)
            if not got.object_found:
                raise FailedRequestError("the SuperLink has lost a part of the message")
            if got.object_available:
                return got.object_content
            if time.monotonic() >= deadline:
                raise FailedRequestError("a part of the message does not come")
            self._sleep(pause)
            pause = min(2 * pause, LAST_OBJECT_RETRY_SECONDS)

    def confirm(self, pulled: Pulled) -> None:
        """Say that the message is here, so that the SuperLink forgets it; raises as ``objects``."""
        self._call(
            self._client.ConfirmMessageReceived,
            ConfirmMessageReceivedRequest(
                node=self._node,
                run_id=pulled.message.metadata.run_id,
                message_object_id=pulled.tree.object_id,
            ),
        )

    def push(self, reply: Envelope, seconds: float) -> None:
        """Send a reply.

        Args:
            reply: the message.
            seconds: how long the work took, for the SuperLink's records.

        Raises:
            RunOverError: the run has ended.
            FailedRequestError: the SuperLink does not take it.
            RefusedError: it does not know the node any more.
        """
        for _ in range(PUSHES):
            if self._pushed(reply, seconds):
                return
        raise FailedRequestError("the SuperLink did not store a part of the reply")

    def _pushed(self, reply: Envelope, seconds: float) -> bool:
        run_id = reply.header.metadata.run_id
        pushed = self._call(
            self._client.PushMessages,
            PushMessagesRequest(
                node=self._node,
                messages_list=[reply.header],
                message_object_trees=[reply.tree],
                clientapp_runtime_list=[seconds],
            ),
        )
        for digest in dict.fromkeys(pushed.objects_to_push):
            stored = self._call(
                self._client.PushObject,
                PushObjectRequest(
                    node=self._node,
                    run_id=run_id,
                    object_id=digest,
                    object_content=reply.objects[digest],
                    session_id=pushed.session_id,
                ),
            )
            if not stored.stored:
                return False
        return True

    def _open(self, seconds: float) -> FleetHttpClient:
        scheme = "http" if self._verify is None else "https"
        return FleetHttpClient(
            f"{scheme}://{self._superlink}",
            interceptors=[self._signed],
            verify=self._verify or False,
            timeout=seconds,
        )

    def _call(self, method: Callable[[Request], Response], request: Request) -> Response:
        pause, since = FIRST_RETRY_SECONDS, time.monotonic()
        told = False
        while True:
            if self._refused is not None:
                raise self._refused
            try:
                response = method(request)
            except httpx.TransportError as error:
                reason = _transport_reason(error)
            except httpx.HTTPStatusError as error:
                reason = self._status_reason(error.response)
            else:
                if told:
                    log.info("the SuperLink answers again after %.1f s", time.monotonic() - since)
                return response
            if not told:
                log.warning("the SuperLink at %s does not answer: %s", self._superlink, reason)
                told = True
            # Not all nodes at the same moment.
            self._sleep(pause * random.uniform(0.7, 1.3))  # noqa: S311 - no secret
            pause = min(2 * pause, LAST_RETRY_SECONDS)

    @staticmethod
    def _status_reason(response: httpx.Response) -> str:
        """Return why a request is to be made again.

        Raises:
            RefusedError: the SuperLink does not know the node.
            RunOverError: the run has ended.
            FailedRequestError: anything else.
        """
        reason = f"{response.status_code} {_detail(response)}"
        if response.status_code in _TEMPORARY:
            return reason
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            raise RefusedError(
                f"the SuperLink does not accept this node's key ({reason}): it was revoked, the "
                "SuperLink has a new database, or one of the two clocks is minutes off"
            )
        if response.status_code == HTTPStatus.FORBIDDEN:
            raise RunOverError(reason)
        raise FailedRequestError(reason)

    def _beat(self) -> None:
        request = SendNodeHeartbeatRequest(
            node=self._node, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL
        )
        pause = HEARTBEAT_SECONDS
        while not self._ended.wait(pause * random.uniform(0.8, 1.0)):  # noqa: S311 - no secret
            pause = HEARTBEAT_SECONDS
            try:
                known = self._client.SendNodeHeartbeat(request).success
            except httpx.TransportError:
                pause = LAST_RETRY_SECONDS
                continue
            except httpx.HTTPStatusError as error:
                try:
                    self._status_reason(error.response)
                except RefusedError as refused:
                    self._refused = refused
                    return
                except (FailedRequestError, RunOverError) as failed:
                    log.warning("the SuperLink refuses a heartbeat: %s", failed)
                pause = LAST_RETRY_SECONDS
                continue
            except (httpx.HTTPError, ValueError) as error:
                # No answer of a SuperLink's: without a heart this node would be counted as gone.
                log.warning("a heartbeat got no answer to be understood: %s", error)
                pause = LAST_RETRY_SECONDS
                continue
            if not known:
                self._refused = RefusedError(
                    "the SuperLink does not know this node any more: it was unregistered, or the "
                    "SuperLink has a new database"
                )
                return


def _detail(response: httpx.Response) -> str:
    try:
        return _Problem.model_validate_json(response.content).detail
    except ValidationError:
        return response.reason_phrase


def _transport_reason(error: httpx.TransportError) -> str:
    """Return why the SuperLink is not reached.

    Raises:
        RefusedError: it is not the SuperLink that this site trusts.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise RefusedError(
                f"the SuperLink's certificate is not trusted ({cause.verify_message}): see "
                "CLOISTER_CA_PATH and CLOISTER_SUPERLINK"
            )
        cause = cause.__cause__ or cause.__context__
    return str(error) or type(error).__name__


def _trusted(connection: Connection) -> ssl.SSLContext | None:
    if connection.insecure:
        return None
    if connection.ca_path is None:
        return httpx.create_ssl_context()
    try:
        return ssl.create_default_context(cafile=connection.ca_path)
    except OSError as error:
        # An SSLError is one too.
        raise CloisterError(
            f"{connection.ca_path}, the CA to trust, cannot be used ({error.strerror or error}): "
            "see CLOISTER_CA_PATH"
        ) from None


def _key(path: Path | None) -> ec.EllipticCurvePrivateKey:
    """Return the site's key, or one for this connection alone."""
    if path is None:
        return ec.generate_private_key(ec.SECP384R1())
    try:
        key = load_ssh_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, UnsupportedAlgorithm):
        raise CloisterError(f"{path}, the site's key, cannot be read") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CloisterError(f"{path}, the site's key, is no elliptic curve key")
    return key
