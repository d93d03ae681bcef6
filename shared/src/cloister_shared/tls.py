"""TLS of a service, from a certificate and its key."""

import logging
import ssl
from pathlib import Path

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
            f"the key without a pass phrase ({_reason(error)}): see CLOISTER_TLS_CERTIFICATE and "
            "CLOISTER_TLS_KEY"
        ) from None
    try:
        expiry = _handshake(context, certificate)
    except ssl.SSLError as error:
        raise CloisterError(
            f"{certificate} cannot serve TLS ({_reason(error)}): renew it, or see that the clock "
            "is right"
        ) from None
    log.info("TLS with a certificate that is valid until %s", expiry)
    return context


def _handshake(context: ssl.SSLContext, certificate: Path) -> str:
    """Let a client that trusts the certificate connect, in memory; return when it expires."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    trusting.load_verify_locations(certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(incoming=to_client, outgoing=to_server)
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
    verified = client.getpeercert()
    return str(verified["notAfter"]) if verified else "an unknown date"


def _reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return (error.reason or str(error)).replace("_", " ").lower()
