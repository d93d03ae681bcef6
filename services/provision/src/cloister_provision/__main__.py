"""Makes what is missing of certificates and secrets, checks all of it, and exits."""

import logging
import re
from contextlib import suppress
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

from cloister_provision.authority import CA_CERTIFICATE, open_authority
from cloister_provision.certificates import (
    OwnCertificate,
    Place,
    ensure_certificate,
    prove,
    trust,
    use_own,
)
from cloister_provision.join_token import ensure_join_token
from cloister_provision.settings import Settings
from cloister_shared.errors import CloisterError
from cloister_shared.files import locked
from cloister_shared.joining import JOIN_TOKENS
from cloister_shared.service import run_service
from cloister_shared.superexec import ensure_secret

LOOPBACK = ("localhost", "127.0.0.1", "::1")
SERVICES = ("server", "dealer", "enrolment")
"""Services with a certificate and its key in two files, each reached by its own name."""
FLEET = "fleet"
"""The address of sites, with certificate and key in one file, as HAProxy reads them."""
OUTSIDE, INSIDE = "tls.pem", "inside.pem"
"""For sites everywhere, the user's own where there is one; and for those that reach it by the name
of the service, whose certificate always comes from the federation's CA."""
FOLDERS = {
    "ca": 0o700,
    "trust": 0o755,
    "control": 0o700,
    "join": 0o700,
    "enrolment": 0o700,
    "fleet-tls": 0o700,
} | {f"{service}-tls": 0o700 for service in SERVICES}
SECRET_FILES = (
    "ca/ca.key",
    "control/superexec.secret",
    "join/join.token",
    f"enrolment/{JOIN_TOKENS}",
    f"fleet-tls/{OUTSIDE}",
    f"fleet-tls/{INSIDE}",
    *(f"{service}-tls/tls.key" for service in SERVICES),
)
_HOST_NAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    r"(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)

log = logging.getLogger(__name__)


def provision(settings: Settings) -> None:
    """Make what is missing, and check that all of it is good.

    Raises:
        CloisterError: something is damaged, or the user's own certificate cannot serve.
        OSError: a volume cannot be read or written.
    """
    now, root = datetime.now(UTC).replace(microsecond=0), settings.federation_dir
    outside, domain = checked_names(settings.names), checked_domain(settings.service_domain)
    own = _own_certificate(settings)
    if own is not None:
        own.check(outside, now)
    _make_folders(root)
    trusted = root / "trust" / CA_CERTIFICATE
    # Two that run at the same time would each make a CA.
    with locked(root / "ca" / CA_CERTIFICATE):
        _protect(root)
        authority = open_authority(root / "ca", now)
        trust(trusted, authority, own)
        for service in SERVICES:
            folder = root / f"{service}-tls"
            place = Place(folder / "tls.crt", folder / "tls.key")
            names = (*_inside(service, domain), *LOOPBACK)
            ensure_certificate(place, names, authority, now)
            prove(place, trusted, names)
        inside, fleet = (_joined(root / "fleet-tls" / name) for name in (INSIDE, OUTSIDE))
        names = (*_inside(FLEET, domain), *LOOPBACK)
        ensure_certificate(inside, names, authority, now)
        prove(inside, trusted, names)
        if own is None:
            outside = tuple(dict.fromkeys((*names, *outside)))
            ensure_certificate(fleet, outside, authority, now)
        else:
            use_own(fleet, own)
        prove(fleet, trusted, outside)
        # What is behind the address of sites, and the SuperLink itself, know the CA alone.
        for name in ("server-tls", "fleet-tls"):
            trust(root / name / CA_CERTIFICATE, authority, None)
        ensure_secret(root / "control" / "superexec.secret")
        ensure_join_token(root / "join" / "join.token", root / "enrolment" / JOIN_TOKENS, now)


def _joined(path: Path) -> Place:
    return Place(path, path)


def checked_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return host names and addresses, each in its usual form.

    Raises:
        CloisterError: one is neither.
    """
    checked = []
    for name in names:
        try:
            checked.append(str(ip_address(name)))
            continue
        except ValueError:
            pass
        if not _HOST_NAME.fullmatch(name):
            raise CloisterError(
                f"CLOISTER_FEDERATION_NAMES: {name!r} is no host name and no IP address; separate "
                "several with commas, and leave out ports"
            )
        checked.append(name.lower())
    return tuple(checked)


def checked_domain(domain: str) -> str:
    """Return a DNS domain in lower case, empty where there is none.

    Raises:
        CloisterError: it is none.
    """
    if domain and not _HOST_NAME.fullmatch(domain):
        raise CloisterError(
            f"CLOISTER_SERVICE_DOMAIN: {domain!r} is no DNS domain; name one such as "
            "cloister.svc.cluster.local, without a dot at either end"
        )
    return domain.lower()


def _inside(service: str, domain: str) -> tuple[str, ...]:
    """Return the names of a service for those of the same network."""
    return (service, f"{service}.{domain}") if domain else (service,)


def _own_certificate(settings: Settings) -> OwnCertificate | None:
    certificate, key = settings.tls_certificate_file, settings.tls_key_file
    authorities = settings.tls_ca_file
    if certificate is None or key is None or authorities is None:
        return None
    # Compose mounts the null device where there is none.
    with suppress(OSError):
        empty = [path for path in (certificate, key, authorities) if not path.read_bytes()]
        if len(empty) == 3:
            return None
        if empty:
            raise CloisterError(
                f"{', '.join(map(str, empty))}: a certificate of one's own needs all of "
                "CLOISTER_TLS_CERTIFICATE_FILE, CLOISTER_TLS_KEY_FILE and CLOISTER_TLS_CA_FILE, "
                "and one is empty"
            )
    return OwnCertificate(certificate, key, authorities)


def _make_folders(root: Path) -> None:
    for name, mode in FOLDERS.items():
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        # A volume's root may be somebody else's, who then has to see to it.
        with suppress(PermissionError):
            if folder.stat().st_mode & 0o777 != mode:
                folder.chmod(mode)


def _protect(root: Path) -> None:
    """Take secrets that others may read, after a copy for example, away from them."""
    for name in SECRET_FILES:
        path = root / name
        if path.exists() and path.stat().st_mode & 0o077:
            path.chmod(0o600)
            log.warning("%s was readable by others, and is not any more", path)


def main() -> None:
    """Entry point of ``python -m cloister_provision``."""
    run_service("provision", Settings, provision)


if __name__ == "__main__":
    main()
