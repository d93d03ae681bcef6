"""A service's certificate: one of the federation's CA, or the user's own."""

import logging
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from cloister_provision.authority import RENEWAL, Authority, general_name, is_current
from cloister_provision.pem import (
    certificate_pem,
    key_block,
    key_pem,
    read_certificate,
    read_certificates,
    read_key,
)
from cloister_shared.errors import CloisterError
from cloister_shared.files import write_atomically
from cloister_shared.tls import reason, verify_server

# Numbers that OpenSSL gives to the ways in which a certificate fails, from x509_vfy.h.
_ENDED, _NOT_YET = 10, 9
_NO_ISSUER = {2, 18, 19, 20, 21}
_OTHER_NAME = {62, 64}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where a certificate and its key lie: in two files, or in one, which has both."""

    certificate: Path
    key: Path

    def write(self, certificates: bytes, key: bytes) -> None:
        """Write both, as PEM.

        Raises:
            OSError: the volume is full or not writable.
        """
        if self.certificate == self.key:
            write_atomically(self.key, certificates + key, 0o600)
            return
        # The certificate last: one without its key would look complete.
        write_atomically(self.key, key, 0o600)
        write_atomically(self.certificate, certificates)


def ensure_certificate(
    place: Place, names: tuple[str, ...], authority: Authority, now: datetime
) -> None:
    """Keep a certificate of the CA's that is good, and make another where it is not.

    Args:
        place: where it lies.
        names: at which the service is reached, the only ones that it may have.
        authority: the CA.
        now: the time in UTC, with its zone.

    Raises:
        OSError: the volume cannot be read or written.
    """
    lacking = _lacking(place, names, authority, now)
    if lacking is None:
        return
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = authority.sign(key.public_key(), names, now)
    place.write(certificate_pem(certificate), key_pem(key))
    log.info(
        "made %s for %s, valid until %s (%s)",
        place.certificate,
        ", ".join(names),
        f"{certificate.not_valid_after_utc:%Y-%m-%d}",
        lacking,
    )


def _lacking(
    place: Place, names: tuple[str, ...], authority: Authority, now: datetime
) -> str | None:
    """Return what is wrong with a certificate of the CA's, None if nothing is."""
    if not place.certificate.exists() or not place.key.exists():
        return "there was none"
    certificate, key = read_certificate(place.certificate), read_key(place.key)
    if certificate is None or key is None:
        return "what was there is damaged, or not its own"
    faults = {
        "what was there is another key's": certificate.public_key() != key.public_key(),
        "what was there is another CA's": not authority.has_signed(certificate),
        "it would have ended soon": not is_current(certificate, now),
        "its names have changed": _names(certificate) != set(map(general_name, names)),
    }
    return next((fault for fault, is_so in faults.items() if is_so), None)


def _names(certificate: x509.Certificate) -> set[x509.GeneralName]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return set()
    return set(found.value)


@dataclass(frozen=True)
class OwnCertificate:
    """The user's own certificate for the address that sites reach."""

    certificate: Path
    key: Path
    authorities: Path
    """The CA certificates that sites are to verify it with."""

    def check(self, names: tuple[str, ...], now: datetime) -> None:
        """See that a site which trusts its CA takes it, for each of the names.

        Args:
            names: at which sites reach the federation.
            now: the time in UTC, with its zone.

        Raises:
            CloisterError: a site would refuse it; the message says why and what to do.
        """
        if not names:
            raise CloisterError(
                "set CLOISTER_FEDERATION_NAMES to the name, or names, at which sites reach the "
                f"federation, and which {self.certificate} is for"
            )
        for variable, path in (
            ("CLOISTER_TLS_CERTIFICATE_FILE", self.certificate),
            ("CLOISTER_TLS_KEY_FILE", self.key),
            ("CLOISTER_TLS_CA_FILE", self.authorities),
        ):
            try:
                path.open("rb").close()
            except OSError as error:
                raise CloisterError(
                    f"{variable}: {path} cannot be read ({error.strerror})"
                ) from None
        if not read_certificates(self.authorities):
            raise CloisterError(f"CLOISTER_TLS_CA_FILE: {self.authorities} has no PEM certificate")
        ends = min(self._verify(name) for name in names)
        if ends - now < RENEWAL:
            log.warning("%s is valid until %s: renew it", self.certificate, f"{ends:%Y-%m-%d}")

    def _verify(self, name: str) -> datetime:
        try:
            return verify_server(self.certificate, self.key, self.authorities, name)
        except ssl.SSLCertVerificationError as error:
            raise CloisterError(self._refusal(name, error)) from None
        except ssl.SSLError as error:
            raise CloisterError(
                f"{self.certificate} and {self.key} are no TLS certificate and its private key, "
                f"both PEM and the key without a pass phrase ({reason(error)}): see "
                "CLOISTER_TLS_CERTIFICATE_FILE and CLOISTER_TLS_KEY_FILE"
            ) from None

    def _refusal(self, name: str, error: ssl.SSLCertVerificationError) -> str:
        code = error.verify_code
        if code == _ENDED:
            return f"{self.certificate}, or a certificate it is signed with, has ended: renew it"
        if code == _NOT_YET:
            return f"{self.certificate} is not valid yet: see that the clock is right"
        if code in _OTHER_NAME:
            return (
                f"{self.certificate} is not for {name}: have one made for every name in "
                "CLOISTER_FEDERATION_NAMES, or correct those"
            )
        if code in _NO_ISSUER:
            return (
                f"{self.certificate} does not lead to a CA in {self.authorities}: add the "
                "intermediate certificates to the first, or the CA that signed it to the second"
            )
        return f"{self.certificate} cannot serve TLS: {reason(error)}"

    def certificates(self) -> bytes:
        """Return the certificate and any intermediate ones, as PEM."""
        return b"".join(map(certificate_pem, read_certificates(self.certificate)))

    def private_key(self) -> bytes:
        """Return the private key alone, whatever else is in its file."""
        return key_block(self.key) or b""


def use_own(place: Place, own: OwnCertificate) -> None:
    """Put the user's certificate and key, which have been checked, where a service reads them.

    Args:
        place: of both in one file.
        own: what goes there.

    Raises:
        OSError: the volume cannot be read or written.
    """
    certificates, key = own.certificates(), own.private_key()
    joined = certificates + key
    if place.key.exists() and place.key.read_bytes() == joined:
        return
    place.write(certificates, key)
    log.info("%s has the certificate of %s", place.certificate, own.certificate)


def trust(path: Path, authority: Authority, own: OwnCertificate | None) -> None:
    """Write the CA certificates that sites and services trust.

    Raises:
        OSError: the volume cannot be read or written.
    """
    trusted = [authority.certificate]
    if own is not None:
        trusted += read_certificates(own.authorities)
    content = b"".join(map(certificate_pem, trusted))
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, content)


def prove(place: Place, authorities: Path, names: tuple[str, ...]) -> None:
    """See that whoever trusts ``authorities`` takes a service at each of its names.

    Raises:
        CloisterError: it is not taken, which no later start would mend by itself.
    """
    for name in names:
        try:
            ends = verify_server(place.certificate, place.key, authorities, name)
        except ssl.SSLError as error:
            raise CloisterError(
                f"{place.certificate} is not taken at {name} ({reason(error)}): see that the "
                f"clock is right ({datetime.now(UTC):%Y-%m-%d %H:%M} UTC), or remove the file and "
                "start again"
            ) from None
    log.info("%s is good until %s at %s", place.certificate, f"{ends:%Y-%m-%d}", ", ".join(names))
