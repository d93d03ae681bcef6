"""The site's own key."""

import os
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)

from cloister_client.joining.node_key import ensure_node_key
from cloister_enrolment.public_key import read_public_key
from cloister_shared.errors import CloisterError


def test_it_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = ensure_node_key(tmp_path / "data")
    finally:
        os.umask(before)
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    assert ensure_node_key(tmp_path / "data") == made
    assert ensure_node_key(tmp_path / "other").fingerprint != made.fingerprint


def test_flower_and_enrolment_read_it(tmp_path: Path) -> None:
    made = ensure_node_key(tmp_path)
    key = load_ssh_private_key(made.path.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP384R1)
    assert key.public_key() == load_ssh_public_key(made.public_key.encode())
    assert read_public_key(made.public_key).fingerprint == made.fingerprint


def test_its_fingerprint_is_the_one_that_openssh_shows(tmp_path: Path) -> None:
    made = ensure_node_key(tmp_path)
    public = tmp_path / "node.pub"
    public.write_text(made.public_key)
    try:
        shown = subprocess.run(
            ["ssh-keygen", "-l", "-f", str(public)], capture_output=True, text=True, check=True
        )
    except FileNotFoundError:
        pytest.skip("OpenSSH is not installed")
    assert shown.stdout.split()[1] == made.fingerprint


def test_one_that_others_could_read_is_taken_away_from_them(tmp_path: Path) -> None:
    made = ensure_node_key(tmp_path)
    made.path.chmod(0o644)
    assert ensure_node_key(tmp_path) == made
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600


def openssh(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, word: bytes) -> bytes:
    protection = BestAvailableEncryption(word) if word else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, protection)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a key",
        b"\xff",
        openssh(ed25519.Ed25519PrivateKey.generate(), b""),
        ec.generate_private_key(ec.SECP384R1()).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        ),
    ],
)
def test_another_file_in_its_place_is_told_and_kept(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "node.key").write_bytes(content)
    with pytest.raises(CloisterError, match="put it back from a copy, or remove it"):
        ensure_node_key(tmp_path)
    assert (tmp_path / "node.key").read_bytes() == content
