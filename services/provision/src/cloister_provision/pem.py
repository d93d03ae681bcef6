"""Keys and certificates in PEM files."""

import re
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

_KEY = re.compile(rb"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.+?-----END \1-----", re.DOTALL)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate as PEM."""
    return certificate.public_bytes(Encoding.PEM)


def key_block(path: Path) -> bytes | None:
    """Return the first private key in a file, of any kind, as PEM; None where there is none.

    Raises:
        OSError: the file cannot be read.
    """
    found = _KEY.search(path.read_bytes())
    return found[0] + b"\n" if found else None


def read_key(path: Path) -> ec.EllipticCurvePrivateKey | None:
    """Return the first private key in a file, None where there is none, or none of its kind.

    Raises:
        OSError: the file cannot be read.
    """
    block = key_block(path)
    if block is None:
        return None
    try:
        key = load_pem_private_key(block, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, ec.EllipticCurvePrivateKey) else None


def read_certificate(path: Path) -> x509.Certificate | None:
    """Return the first certificate in a file, None where there is none.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError:
        return None


def read_certificates(path: Path) -> list[x509.Certificate]:
    """Return all certificates in a file, in their order; an empty list where there are none.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except ValueError:
        return []
