"""TLS of a service, from a certificate and its key."""

import logging
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cloister_shared.errors import CloisterError

_HANDSHAKE_STEPS = 8
"""More than a handshake has, on both sides together."""

log = logging.getLogger(__name__)


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return a context for TLS 1.2 and newer, checked by a handshake with itself.

    Args:
        certificate: PEM file with the service's certificate, then any intermediate ones.
        key: PEM file with its private key, without a pass phrase.

    Raises:
        CloisterError: a file cannot be read, the two are no pair, or the certificate is not valid
            now or not for a server.
    """
    for what, path in (("certificate", certificate), ("key", key)):
        try:
            path.open("rb").close()
        except OSError as error:
            raise CloisterError(
                f"{path}, the TLS {what}, cannot be read ({error.strerror}): see "
                f"CLOISTER_TLS_{what.upper()}"
            ) from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Without a pass phrase here OpenSSL would ask the terminal for one.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        raise CloisterError(
            f"{certificate} and {key} are no TLS certificate and its private key, both PEM and "
            f"the key without a pass phrase ({reason(error)}): see CLOISTER_TLS_CERTIFICATE and "
            "CLOISTER_TLS_KEY"
        ) from None
    try:
        # The client trusts the certificate itself, not only the CA that it comes from.
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname = False
        trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        trusting.load_verify_locations(certificate)
        verified = _handshake(context, trusting)
    except ssl.SSLError as error:
        raise CloisterError(
            f"{certificate} cannot serve TLS ({reason(error)}): renew it, or see that the clock "
            "is right"
        ) from None
    expiry = verified.get("notAfter", "an unknown date")
    log.info("TLS with a certificate that is valid until %s", expiry)
    return context


def verify_server(certificate: Path, key: Path, authorities: Path, name: str) -> datetime:
    """See that a client which trusts ``authorities`` takes a server for ``name``, by a handshake.

    Args:
        certificate: PEM file with the server's certificate, then any intermediate ones.
        key: PEM file with its private key, without a pass phrase.
        authorities: PEM file with CA certificates.
        name: host name or IP address at which the client reaches the server.

    Returns:
        When the certificate ends.

    Raises:
        ssl.SSLCertVerificationError: the client does not take it.
        ssl.SSLError: a file is not what it should be, or the two are no pair.
        OSError: a file cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # Without a pass phrase here OpenSSL would ask the terminal for one.
    context.load_cert_chain(certificate, key, password="")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(authorities)
    verified = _handshake(context, client, name)
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(verified["notAfter"])), UTC)


def _handshake(
    context: ssl.SSLContext, trusting: ssl.SSLContext, name: str | None = None
) -> dict[str, Any]:
    """Let a client connect, in memory, and return the certificate that it has verified."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(incoming=to_client, outgoing=to_server, server_hostname=name)
    server = context.wrap_bio(incoming=to_server, outgoing=to_client, server_side=True)
    waiting = [client, server]
    for _ in range(_HANDSHAKE_STEPS):
        for side in tuple(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)
    if waiting:
        raise ssl.SSLError("the handshake does not end")
    return client.getpeercert() or {}


def reason(error: ssl.SSLError) -> str:
    """Return what OpenSSL says is wrong, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return (error.reason or str(error)).replace("_", " ").lower()
