"""Becomes the Flower SuperLink."""

import logging

from cloister_server.settings import Settings
from cloister_server.superlink import TlsFiles, run_superlink, superlink_options
from cloister_shared.errors import CloisterError
from cloister_shared.service import run_service
from cloister_shared.superexec import ensure_secret
from cloister_shared.tls import server_context

log = logging.getLogger(__name__)


def serve(settings: Settings) -> None:
    """Make the secret if there is none, then be the SuperLink.

    Raises:
        CloisterError: there is no certificate that it could serve with.
        OSError: a volume cannot be read or written.
    """
    tls = tls_files(settings)
    ensure_secret(settings.superexec_secret)
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    database = settings.state_dir / "superlink.db"
    run_superlink(
        superlink_options(settings.host, settings.port, database, settings.superexec_secret, tls)
    )


def tls_files(settings: Settings) -> TlsFiles | None:
    """Return the files for TLS, which have been checked; None where there shall be no TLS.

    Raises:
        CloisterError: they are not set, or cannot serve.
    """
    if settings.insecure:
        log.warning(
            "CLOISTER_INSECURE: no TLS, and every node is let in; for tests on one machine alone"
        )
        return None
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None or key is None or settings.tls_ca is None:
        raise CloisterError(
            "set CLOISTER_TLS_CERTIFICATE, CLOISTER_TLS_KEY and CLOISTER_TLS_CA to the files that "
            "provision makes (server-tls)"
        )
    server_context(certificate, key)
    if not settings.tls_ca.is_file():
        raise CloisterError(f"CLOISTER_TLS_CA: there is no file {settings.tls_ca}")
    return TlsFiles(certificate, key, settings.tls_ca)


def main() -> None:
    """Entry point of ``python -m cloister_server``."""
    run_service("server", Settings, serve)


if __name__ == "__main__":
    main()
