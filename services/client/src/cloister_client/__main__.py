"""Holds one shard and runs a SuperNode for it until it is stopped."""

import logging
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
from pydantic import TypeAdapter, ValidationError

from cloister_client.commands import command
from cloister_client.joining.connection import Connection
from cloister_client.joining.enrolment import Enrolment
from cloister_client.joining.node_key import ensure_node_key
from cloister_client.lease import leased_shard
from cloister_client.node.supernode import keep_running
from cloister_client.settings import Settings
from cloister_client.site import Site
from cloister_shared.errors import CloisterError
from cloister_shared.joining import SiteName
from cloister_shared.service import run_service

HTTP_TIMEOUT_SECONDS = 30.0

log = logging.getLogger(__name__)

Admit = Callable[[threading.Event], None]


def run_site(settings: Settings) -> None:
    """Run a SuperNode for the site's own folder, or for one leased shard after another.

    Raises:
        CloisterError: a setting, the CA's file or the site's key is wrong, or no shard was to be
            had.
    """
    verify = _trust(settings.ca_path)
    if settings.insecure:
        log.warning("CLOISTER_INSECURE: no TLS and no key; for tests on one machine alone")
        _run_shards(settings, Connection(settings.superlink), verify, lambda _: None)
        return
    if settings.join_token_path is None:
        raise CloisterError("set CLOISTER_JOIN_TOKEN_PATH to the file with this site's join token")
    key = ensure_node_key(settings.data_dir)
    with httpx.Client(
        base_url=settings.enrolment_url, timeout=HTTP_TIMEOUT_SECONDS, verify=verify
    ) as http:
        enrolment = Enrolment(http, settings.join_token_path, key, _site_name(settings))
        connection = Connection(settings.superlink, settings.ca_path, key.path)
        _run_shards(settings, connection, verify, enrolment.admit)


def _run_shards(
    settings: Settings, connection: Connection, verify: ssl.SSLContext | bool, admit: Admit
) -> None:
    def keep(folder: Path, stop: threading.Event) -> None:
        site = Site(folder.resolve(), settings.columns, settings.require_secure_aggregation)
        keep_running(connection, site, settings.message_seconds, stop, admit)

    if settings.shard_dir is not None:
        keep(settings.shard_dir, threading.Event())
        return
    with httpx.Client(
        base_url=settings.dealer_url, timeout=HTTP_TIMEOUT_SECONDS, verify=verify
    ) as dealer:
        while True:
            with leased_shard(dealer, settings.data_dir, settings.lease_patience_seconds) as shard:
                keep(shard.folder, shard.lost)


def _trust(ca_path: Path | None) -> ssl.SSLContext | bool:
    """Return what servers are verified with.

    Raises:
        CloisterError: the file has no certificates.
    """
    if ca_path is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_path)
    except (OSError, ssl.SSLError) as error:
        raise CloisterError(
            f"CLOISTER_CA_PATH: {ca_path} has no CA certificate in PEM ({error}): ask whoever runs "
            "the federation for its trust/ca.crt"
        ) from None


def _site_name(settings: Settings) -> str:
    if settings.site_name is not None:
        return settings.site_name
    host = socket.gethostname()
    try:
        return TypeAdapter(SiteName).validate_python(host)
    except ValidationError:
        raise CloisterError(
            f"set CLOISTER_SITE_NAME: this host's name, {host!r}, has other characters than "
            "letters, digits, ., - and _"
        ) from None


def main() -> None:
    """Entry point of ``python -m cloister_client``."""
    arguments = sys.argv[1:]
    run_service("client", Settings, command(arguments) if arguments else run_site)


if __name__ == "__main__":
    main()
