"""Certificates as a user brings them: of a CA that is not the federation's."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)
NOW = datetime.now(UTC).replace(microsecond=0)


@dataclass(frozen=True)
class Signed:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey

    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def key_pem(self, password: bytes | None = None) -> bytes:
        protection: KeySerializationEncryption = NoEncryption()
        if password:
            protection = BestAvailableEncryption(password)
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, protection)


def signed(
    name: str,
    issuer: Signed | None = None,
    *,
    names: tuple[str, ...] = (),
    ends: datetime = NOW + 90 * DAY,
) -> Signed:
    """Return a CA's certificate, or with ``names`` a server's, with an RSA key."""
    key = rsa.generate_private_key(65537, 2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(ends - 100 * DAY)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
    )
    if names:
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(alternatives, critical=False)
    return Signed(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


@dataclass
class OwnFiles:
    """A user's files: root CA, intermediate CA, certificate for ``fl.hospital.example``."""

    folder: Path
    root: Signed
    intermediate: Signed

    def write(
        self,
        *,
        names: tuple[str, ...] = ("fl.hospital.example",),
        ends: datetime = NOW + 90 * DAY,
        chain: bool = True,
        key: bytes | None = None,
        authorities: bytes | None = None,
    ) -> dict[str, Path]:
        """Write them, and return the settings that name them."""
        server = signed("server", self.intermediate, names=names, ends=ends)
        contents = {
            "tls_certificate_file": server.pem() + (self.intermediate.pem() if chain else b""),
            "tls_key_file": server.key_pem() if key is None else key,
            "tls_ca_file": self.root.pem() if authorities is None else authorities,
        }
        self.folder.mkdir(exist_ok=True)
        for name, content in contents.items():
            (self.folder / name).write_bytes(content)
        return {name: self.folder / name for name in contents}
