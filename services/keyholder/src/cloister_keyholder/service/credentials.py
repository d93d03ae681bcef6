"""What the key holder shows to the service, and what it asks of the service's certificate."""

import re
import ssl
from pathlib import Path

from cloister_keyholder.errors import KeyholderError

# What a bearer token may have: RFC 6750, 2.1.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


def read_api_key(path: Path | None) -> str | None:
    """Return the API key in a file; None where the file is empty or ``path`` is None.

    Raises:
        KeyholderError: the file cannot be read, or holds something else. The message names the
            file and nothing of its content.
    """
    if path is None:
        return None
    try:
        content = path.read_bytes().decode("ascii").strip()
    except OSError as error:
        raise KeyholderError(
            f"{path}, the file of the API key, cannot be read ({error.strerror}): see "
            "CLOISTER_API_KEY_PATH"
        ) from None
    except UnicodeDecodeError:
        raise KeyholderError(
            f"{path} holds no API key: write the key there, and nothing else"
        ) from None
    if content and not _TOKEN.fullmatch(content):
        raise KeyholderError(f"{path} holds no API key: write the key there, and nothing else")
    return content or None


def authorization(api_key: str | None) -> dict[str, str]:
    """Return the header that shows an API key; none for None or an empty one.

    Raises:
        KeyholderError: it cannot be an API key; the message does not say it.
    """
    if not api_key:
        return {}
    if not _TOKEN.fullmatch(api_key):
        raise KeyholderError("the API key is none: it is one word of letters, digits and ._~+/-=")
    return {"Authorization": f"Bearer {api_key}"}


def trust(ca_path: Path | None) -> ssl.SSLContext | bool:
    """Return what httpx takes as ``verify``: the CA certificates in a file, or the usual ones.

    Args:
        ca_path: PEM file; these alone are trusted then. None for the usual ones.

    Raises:
        KeyholderError: the file cannot be read, or holds no certificates.
    """
    if ca_path is None:
        return True
    try:
        context = ssl.create_default_context(cafile=ca_path)
    # An SSLError is an OSError too.
    except ssl.SSLError as error:
        reason = f"it holds no PEM certificates: {error.reason or error}"
    except OSError as error:
        reason = error.strerror or str(error)
    else:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context
    raise KeyholderError(
        f"{ca_path} cannot be used as CA certificates ({reason}): see CLOISTER_CA_PATH"
    )
