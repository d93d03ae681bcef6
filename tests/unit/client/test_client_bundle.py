"""Only this image's own bundle is taken; what is in another is never looked at."""

import hashlib
import io
import stat
import zipfile
from collections.abc import Callable

import pytest
from flwr.cli.build import build_fab_from_files
from hypothesis import given
from hypothesis import strategies as st

from cloister_client.node.bundle import ForeignBundleError, check_bundle, check_digest, own_bundle
from cloister_shared.flower import BUNDLE, CLIENT_APP

HOSTILE = BUNDLE.replace(CLIENT_APP, "os:system")


def built(**files: str) -> bytes:
    """What Flower's own command builds from BUNDLE and these files."""
    sources = {"pyproject.toml": BUNDLE} | {name.replace("__", "."): t for name, t in files.items()}
    return build_fab_from_files({name: text.encode() for name, text in sources.items()})[0]


def test_what_flower_builds_from_the_bundle_is_taken() -> None:
    check_bundle(built())
    check_digest(hashlib.sha256(built()).hexdigest())


def zipped(change: Callable[[zipfile.ZipFile], None]) -> bytes:
    """The own bundle, with something done to it by hand."""
    content = io.BytesIO(own_bundle())
    with zipfile.ZipFile(content, "a") as archive:
        change(archive)
    return content.getvalue()


def link(archive: zipfile.ZipFile) -> None:
    entry = zipfile.ZipInfo("link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(entry, "/etc/passwd")


def bomb(archive: zipfile.ZipFile) -> None:
    archive.writestr("zeros.py", bytes(1 << 24), zipfile.ZIP_DEFLATED)


def shadow(archive: zipfile.ZipFile) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("pyproject.toml", HOSTILE)


def huge_declared_size() -> bytes:
    """Says in its directory that a file of a hundred bytes has four gigabytes."""
    content = bytearray(own_bundle())
    directory = content.index(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = b"\xff\xff\xff\xfe"
    return bytes(content)


@pytest.mark.parametrize(
    "bundle",
    [
        pytest.param(built(evil__py="print(1)"), id="a module more"),
        pytest.param(built(cloister_client__py="print(1)"), id="a module of an installed name"),
        pytest.param(built(pyproject__toml=HOSTILE), id="another ClientApp"),
        pytest.param(zipped(link), id="a symbolic link"),
        pytest.param(zipped(bomb), id="a zip bomb"),
        pytest.param(zipped(shadow), id="a second file of the same name"),
        pytest.param(zipped(lambda z: z.writestr("../evil.py", "")), id="a path upwards"),
        pytest.param(huge_declared_size(), id="a huge declared size"),
        pytest.param(own_bundle() + b"x", id="a byte after the end"),
        pytest.param(b"x" + own_bundle(), id="a byte before the beginning"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"no archive", id="no archive"),
    ],
)
def test_another_bundle_is_refused(bundle: bytes) -> None:
    with pytest.raises(ForeignBundleError, match="runs the code of its own image only"):
        check_bundle(bundle)
    with pytest.raises(ForeignBundleError):
        check_digest(hashlib.sha256(bundle).hexdigest())


@given(st.data())
def test_a_bundle_with_any_byte_changed_is_refused(data: st.DataObject) -> None:
    bundle = bytearray(own_bundle())
    position = data.draw(st.integers(0, len(bundle) - 1))
    bundle[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ForeignBundleError):
        check_bundle(bytes(bundle))


@given(st.text())
def test_a_digest_of_any_form_is_refused_in_one_printable_line(digest: str) -> None:
    with pytest.raises(ForeignBundleError) as refused:
        check_digest(digest)
    assert str(refused.value).isascii()
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 1000
