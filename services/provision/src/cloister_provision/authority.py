"""The CA: made once, kept, and renewed with the same key."""

import logging
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloister_provision.pem import certificate_pem, key_pem, read_certificate, read_key
from cloister_shared.errors import CloisterError
from cloister_shared.files import write_atomically

CA_KEY = "ca.key"
CA_CERTIFICATE = "ca.crt"
CA_LIFETIME = timedelta(days=3650)
LIFETIME = timedelta(days=397)
"""Of a service's certificate."""
RENEWAL = timedelta(days=30)
"""A certificate that ends sooner is renewed."""
CLOCK_TOLERANCE = timedelta(hours=1)
"""How far the clock of a site may be behind."""
_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Cloister federation CA")])

log = logging.getLogger(__name__)


def is_current(certificate: x509.Certificate, now: datetime) -> bool:
    """Whether a certificate is valid, and still is in 30 days."""
    return (
        certificate.not_valid_before_utc <= now and now + RENEWAL < certificate.not_valid_after_utc
    )


class Authority:
    """A CA that signs certificates of servers.

    Attributes:
        certificate: its own, self-signed.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self.certificate = certificate
        self._key = key

    def has_signed(self, certificate: x509.Certificate) -> bool:
        """Whether a certificate comes from this CA."""
        try:
            certificate.verify_directly_issued_by(self.certificate)
        except Exception:  # noqa: BLE001 - what else than ours it is raises many things
            return False
        return True

    def sign(
        self, key: ec.EllipticCurvePublicKey, names: tuple[str, ...], now: datetime
    ) -> x509.Certificate:
        """Return a certificate for a server.

        Args:
            key: the server's.
            names: host names and IP addresses at which it is reached; the first is its subject.
            now: the time in UTC, with its zone.
        """
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
        usage = _key_usage(digital_signature=True)
        ends = min(now + LIFETIME, self.certificate.not_valid_after_utc)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_TOLERANCE)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName(map(general_name, names)), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(_issuer_identifier(self._key), critical=False)
            .sign(self._key, hashes.SHA256())
        )


def open_authority(folder: Path, now: datetime) -> Authority:
    """Return the CA in a folder, made where there is none, and renewed where it is about to end.

    It is renewed with the same key, so that what it has signed stays good.

    Raises:
        CloisterError: its key is missing or damaged, or its certificate is another CA's.
        OSError: the folder cannot be read or written.
    """
    key_path, path = folder / CA_KEY, folder / CA_CERTIFICATE
    lost = (
        f"put {key_path} back from a copy. Without one, remove {path} and {key_path}: another CA "
        "is made, and every site outside needs its certificate"
    )
    if not key_path.exists():
        if path.exists():
            raise CloisterError(f"the CA's key is missing: {lost}")
        key = ec.generate_private_key(ec.SECP256R1())
        write_atomically(key_path, key_pem(key), 0o600)
        return _certify(key, path, now)
    found = read_key(key_path)
    if found is None:
        raise CloisterError(f"the CA's key is damaged: {lost}")
    if not path.exists():
        return _certify(found, path, now)
    certificate = read_certificate(path)
    if certificate is None:
        log.warning("%s is damaged, and made again with the same key", path)
        return _certify(found, path, now)
    if certificate.public_key() != found.public_key():
        raise CloisterError(f"{path} is not the certificate of the CA's key: {lost}")
    if not is_current(certificate, now):
        log.warning(
            "the CA's certificate is valid until %s and is renewed: every site outside needs the "
            "new one before then",
            f"{certificate.not_valid_after_utc:%Y-%m-%d}",
        )
        return _certify(found, path, now)
    return Authority(found, certificate)


def _certify(key: ec.EllipticCurvePrivateKey, path: Path, now: datetime) -> Authority:
    """Write a certificate of a CA with this key."""
    usage = _key_usage(key_cert_sign=True, crl_sign=True)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_NAME)
        .issuer_name(_NAME)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_TOLERANCE)
        .not_valid_after(now + CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    write_atomically(path, certificate_pem(certificate))
    log.info("made the CA's certificate, valid until %s", f"{now + CA_LIFETIME:%Y-%m-%d}")
    return Authority(key, certificate)


def general_name(name: str) -> x509.GeneralName:
    """Return a host name or an IP address as certificates have it."""
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _issuer_identifier(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    # Of the key alone: it stays when the CA's certificate is renewed.
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
