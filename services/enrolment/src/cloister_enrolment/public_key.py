"""A site's public key, in the forms that it is sent, registered and shown in."""

import base64
import hashlib
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)


class KeyNotTakenError(Exception):
    """It is no key that the SuperLink takes."""


@dataclass(frozen=True)
class PublicKey:
    """An EC key on P-256, P-384 or P-521."""

    pem: str
    """As Flower registers it."""
    fingerprint: str
    """As ``ssh-keygen -l`` shows it: SHA-256 in base64."""


def read_public_key(text: str) -> PublicKey:
    """Return a key from OpenSSH's form.

    Args:
        text: from anywhere.

    Raises:
        KeyNotTakenError: it is none that Flower takes.
    """
    try:
        key = load_ssh_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise KeyNotTakenError from None
    # OpenSSH has no EC keys but those on the three curves, which are among Flower's.
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise KeyNotTakenError
    blob = base64.b64decode(key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1])
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return PublicKey(pem=pem, fingerprint=f"SHA256:{digest}")
