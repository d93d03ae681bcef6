"""A query's key in a file, for a result that is decrypted later."""

import base64
import os
from pathlib import Path
from typing import Literal

from pydantic import Base64Bytes, BaseModel, ConfigDict, ValidationError

from cloister_keyholder.errors import KeyUnusable

KEY_MODE = 0o600
"""Readable and writable by its owner alone."""


class KeyFile(BaseModel):
    """A secret key, and the version of the model that its query was encrypted for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["cloister-query-key-1"] = "cloister-query-key-1"
    model: str
    version: int
    client_digest: str
    keyset: Base64Bytes
    """Concrete's serialised key set."""

    def __repr__(self) -> str:
        return f"KeyFile(model={self.model!r}, version={self.version})"

    __str__ = __repr__


def new_key_file(model: str, version: int, client_digest: str, keyset: bytes) -> KeyFile:
    """Return a key file with a key set as it was exported."""
    return KeyFile(
        model=model,
        version=version,
        client_digest=client_digest,
        keyset=base64.b64encode(keyset),
    )


def write_key(key: KeyFile, path: Path) -> None:
    """Create the file, readable by its owner alone.

    Raises:
        KeyUnusable: there is a file at ``path`` already; it is left as it is.
        OSError: the folder is not writable or the volume is full.
    """
    write_new(path, key.model_dump_json(indent=2).encode() + b"\n", KEY_MODE)


def read_key(path: Path) -> KeyFile:
    """Read a key file.

    Raises:
        KeyUnusable: it is missing, or is not a key file.
    """
    try:
        return KeyFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise KeyUnusable(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError:
        raise KeyUnusable(f"{path} is not a key file of keyholder encrypt") from None


def check_client(held: KeyFile, path: Path, client_digest: str, url: str) -> None:
    """Raise unless a key is of the client.zip that a service offers.

    Args:
        held: the key.
        path: of its file.
        client_digest: SHA-256 of the client.zip of the version that the key names.
        url: of the service.

    Raises:
        KeyUnusable: it is of another one.
    """
    if client_digest != held.client_digest:
        raise KeyUnusable(
            f"{path} is of another client.zip than version {held.version} of {held.model} at "
            f"{url}: give the service that the row was encrypted for"
        )


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Create a file that was not there before.

    Raises:
        KeyUnusable: there is a file at ``path`` already; it is left as it is.
        OSError: the folder is not writable or the volume is full.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise KeyUnusable(
            f"{path} exists and is not overwritten: it may belong to a query whose result is yet "
            "to come. Give another path, or delete it"
        ) from None
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
