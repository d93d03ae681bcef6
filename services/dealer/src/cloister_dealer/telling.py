"""What the trainer is told of a deal: whether it is another one, and nothing of its rows."""

import hashlib
import hmac
import secrets
from pathlib import Path

from cloister_dealer.deal import Deal
from cloister_shared.digests import digest_json
from cloister_shared.errors import CloisterError
from cloister_shared.files import write_atomically

KEY_BYTES = 32


def tell(dealt: Deal, path: Path, key_path: Path) -> None:
    """Write what stands for a deal: HMAC-SHA-256 of its digests, 64 hexadecimal digits.

    A plain digest would let whoever reads it try guesses of the rows.

    Args:
        dealt: what was dealt.
        path: where the trainer reads it.
        key_path: the key, which stays with the dealer; made where it is missing. With another one
            everything counts as dealt anew.

    Raises:
        CloisterError: there is something else than a key.
        OSError: a volume is full or not writable.
    """
    content = digest_json(dealt.model_dump(mode="json")).encode()
    told = hmac.new(_key(key_path), content, hashlib.sha256).hexdigest()
    write_atomically(path, f"{told}\n".encode())


def _key(path: Path) -> bytes:
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = secrets.token_bytes(KEY_BYTES)
        write_atomically(path, key, mode=0o600)
    if len(key) != KEY_BYTES:
        raise CloisterError(
            f"{path} is no key of {KEY_BYTES} bytes: remove it, and the next training begins anew"
        )
    return key
