"""The bundle of a run: the one that this site's own image would build, and no other."""

import hashlib
import zipfile
from functools import cache
from io import BytesIO

from flwr.common.constant import FAB_CONFIG_FILE, FAB_DATE

from cloister_shared.errors import CloisterError
from cloister_shared.flower import BUNDLE

MANIFEST = ".info/CONTENT"
"""What Flower adds to every bundle: name, digest and size in bits of each file."""


class ForeignBundleError(CloisterError):
    """A run's bundle is not this image's own."""


@cache
def own_bundle() -> bytes:
    """Return what Flower builds from ``BUNDLE``, byte for byte.

    Flower's own ``flwr.cli.build`` does the same, and imports all of its command line for it.
    """
    pyproject = BUNDLE.encode()
    digest = hashlib.sha256(pyproject).hexdigest()
    manifest = f"{FAB_CONFIG_FILE},{digest},{8 * len(pyproject)}".encode()
    bundle = BytesIO()
    with zipfile.ZipFile(bundle, "w") as archive:
        for name, content in ((FAB_CONFIG_FILE, pyproject), (MANIFEST, manifest)):
            archive.writestr(zipfile.ZipInfo(name, FAB_DATE), content)
    return bundle.getvalue()


def check_digest(digest: str) -> None:
    """See that a run's bundle is this image's own, before it is fetched.

    Args:
        digest: SHA-256 of the bundle in hexadecimal, as the server states it.

    Raises:
        ForeignBundleError: it is another.
    """
    own = hashlib.sha256(own_bundle()).hexdigest()
    if digest != own:
        raise ForeignBundleError(
            "this site runs the code of its own image only, and the run's bundle is another (its "
            f"digest is {digest[:64]!a}, the image's own {own!r}): submit runs with the trainer, "
            "of the site's version"
        )


def check_bundle(bundle: bytes) -> None:
    """See that a bundle is this image's own. It is compared, and never opened.

    So there is nothing in a hostile one that this site could be made to read, unpack or run.

    Raises:
        ForeignBundleError: it is another.
    """
    check_digest(hashlib.sha256(bundle).hexdigest())
