"""Certificates of the tests' own."""

import subprocess
from pathlib import Path


def self_signed(folder: Path, name: str, *names: str) -> tuple[Path, Path]:
    """Write a certificate that is its own CA, and its key, as containers' user may read them.

    Args:
        folder: where to.
        name: of the files.
        names: that it is for, in OpenSSL's form: ``DNS:...`` and ``IP:...``.

    Returns:
        The files of the certificate and of the key.
    """
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-days", "100"),
            *("-pkeyopt", "ec_paramgen_curve:P-256", "-subj", f"/CN={name}"),
            *("-addext", f"subjectAltName={','.join(names)}"),
            *("-keyout", key, "-out", certificate),
        ],
        capture_output=True,
        check=True,
    )
    for path in (certificate, key):
        path.chmod(0o644)
    return certificate, key
