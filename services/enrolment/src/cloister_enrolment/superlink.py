"""Nodes at the SuperLink, through its Control API."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    RegisterNodeRequest,
    UnregisterNodeRequest,
)
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.error import ApiErrorCode, FlowerError

from cloister_shared.errors import CloisterError

UNREGISTERED = "unregistered"
"""Flower's word for a node that was removed; its key is taken for ever."""


class SuperLinkAwayError(Exception):
    """The SuperLink does not answer, or not as it should; the message has the reason."""


class UnregisteredError(Exception):
    """The SuperLink has removed the node with this key, and takes the key no more."""


class SuperLink:
    """Registers and removes nodes. For use from any thread."""

    def __init__(self, address: str, authorities: Path) -> None:
        """Reach a SuperLink.

        Args:
            address: host and port.
            authorities: PEM file with the CA certificates it is verified with.

        Raises:
            CloisterError: the file is no such file.
        """
        self._address = address
        try:
            self._authorities = authorities.read_bytes()
            with self._client():
                pass
        except (OSError, ValueError):
            raise CloisterError(
                f"CLOISTER_CA_PATH: {authorities} has no CA certificate in PEM; provision makes it"
            ) from None

    @contextmanager
    def _client(self) -> Iterator[ControlHttpClient]:
        with ControlHttpClient.from_server_address(
            self._address, insecure=False, root_certificates=self._authorities, interceptors=()
        ) as client:
            yield client

    @contextmanager
    def _asking(self) -> Iterator[ControlHttpClient]:
        with self._client() as client:
            try:
                yield client
            except httpx.HTTPStatusError as error:
                raise SuperLinkAwayError(
                    f"the SuperLink answers {error.response.status_code}"
                ) from None
            except (httpx.HTTPError, ValueError) as error:
                raise SuperLinkAwayError(
                    f"no SuperLink answers at {self._address} ({error})"
                ) from None

    def register(self, key: bytes, name: str) -> int:
        """Return the number of the node with this key, which is registered if it is not.

        Args:
            key: public, PEM.
            name: of the site.

        Raises:
            SuperLinkAwayError: nothing is known of what has happened.
            UnregisteredError: the node was removed.
        """
        with self._asking() as client:
            try:
                answer = client.RegisterNode(RegisterNodeRequest(public_key=key, name=name))
            except httpx.HTTPStatusError as error:
                if _code(error) != ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE:
                    raise
            else:
                # Flower answers 0 where its database has failed.
                if answer.node_id:
                    return int(answer.node_id)
                raise SuperLinkAwayError("the SuperLink could not register the node")
            node = _find(client, key)
        if node is None or node.status == UNREGISTERED:
            raise UnregisteredError
        return int(node.node_id)

    def unregister(self, key: bytes) -> None:
        """Remove the node with this key, if there is one.

        Args:
            key: public, PEM.

        Raises:
            SuperLinkAwayError: nothing is known of what has happened.
        """
        with self._asking() as client:
            node = _find(client, key)
            if node is not None and node.status != UNREGISTERED:
                client.UnregisterNode(UnregisterNodeRequest(node_id=node.node_id))


def _find(client: ControlHttpClient, key: bytes) -> NodeInfo | None:
    nodes = client.ListNodes(ListNodesRequest()).nodes_info
    return next((node for node in nodes if node.public_key == key), None)


def _code(error: httpx.HTTPStatusError) -> int | None:
    flower_error = FlowerError.from_json(error.response.text)
    return flower_error.code if flower_error else None
