"""Zip archives from the network, read without trusting the sizes they state."""

import io
import zipfile
import zlib

from cloister_keyholder.errors import InvalidClientPackage

MEMBERS_LIMIT = 64


def read_members(data: bytes, *, limit: int) -> dict[str, bytes]:
    """Return the members of a zip archive by name.

    Args:
        data: the archive.
        limit: the most bytes that all members may have together once unpacked. Unpacking stops
            there, whatever sizes the archive states.

    Raises:
        InvalidClientPackage: the archive is damaged, unpacks to more than ``limit`` bytes, names a
            member twice, or has too many members.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            if len(infos) > MEMBERS_LIMIT:
                raise InvalidClientPackage(f"the archive has more than {MEMBERS_LIMIT} members")
            members: dict[str, bytes] = {}
            left = limit
            for info in infos:
                if info.filename in members:
                    raise InvalidClientPackage(f"the archive names {info.filename!r} twice")
                members[info.filename] = _read(archive, info, left)
                left -= len(members[info.filename])
            return members
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        raise InvalidClientPackage(f"the archive is damaged: {error}") from None
    except (NotImplementedError, RuntimeError):
        raise InvalidClientPackage("the archive is packed or encrypted in an unknown way") from None


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> bytes:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InvalidClientPackage(f"{info.filename!r} is packed in an unknown way")
    if info.file_size > limit:
        raise InvalidClientPackage("the archive unpacks to more bytes than it may")
    with archive.open(info) as stream:
        # Asking for a number of bytes bounds what is unpacked; reading to the end would not.
        content = stream.read(info.file_size + 1)
    if len(content) != info.file_size:
        raise InvalidClientPackage(f"{info.filename!r} is not of the size that the archive states")
    return content
