"""The site's own key, by which the SuperLink knows it."""

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from cloister_shared.errors import CloisterError
from cloister_shared.files import write_atomically

NODE_KEY = "node.key"
"""File in the client's own folder."""


@dataclass(frozen=True)
class NodeKey:
    """A private key in a file, and what others may know of it."""

    path: Path
    """EC P-384 in OpenSSH's form, which is the one that Flower reads."""
    public_key: str
    """In OpenSSH's form."""
    fingerprint: str
    """Of the public key, as ``ssh-keygen -l`` shows it."""


def ensure_node_key(folder: Path) -> NodeKey:
    """Return the key in a folder, made where there is none, and readable by its owner alone.

    Raises:
        CloisterError: what is there is no such key.
        OSError: the folder cannot be read or written.
    """
    path = folder / NODE_KEY
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        key = ec.generate_private_key(ec.SECP384R1())
        content = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        write_atomically(path, content, 0o600)
        return _described(path, key)
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
    try:
        loaded = load_ssh_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        loaded = None
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise CloisterError(
            f"{path} is no EC key in OpenSSH's form without a pass phrase: put it back from a "
            "copy, or remove it, so that a new one is made and enrolled"
        )
    return _described(path, loaded)


def _described(path: Path, key: ec.EllipticCurvePrivateKey) -> NodeKey:
    public_key = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    digest = hashlib.sha256(base64.b64decode(public_key.split()[1])).digest()
    fingerprint = f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"
    return NodeKey(path, public_key, fingerprint)
