"""A certificate of the user's own, for the address that sites reach."""

import os
import ssl
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from own_files import DAY, NOW, OwnFiles, Signed, signed
from pydantic import ValidationError

from cloister_provision.__main__ import provision
from cloister_provision.settings import Settings
from cloister_shared.errors import CloisterError
from cloister_shared.tls import verify_server

MakeSettings = Callable[..., Settings]
NAME = "fl.hospital.example"


def is_taken(root: Path, name: str, trusted: str = "trust/ca.crt", served: str = "tls.pem") -> bool:
    pem = root / "fleet-tls" / served
    try:
        verify_server(pem, pem, root / trusted, name)
    except ssl.SSLCertVerificationError:
        return False
    return True


def test_it_takes_the_place_of_the_federations_own(
    make_settings: MakeSettings, own_files: OwnFiles
) -> None:
    settings = make_settings(federation_names=NAME, **own_files.write())
    provision(settings)
    root = settings.federation_dir
    assert is_taken(root, NAME)
    assert not is_taken(root, "fleet")
    # Sites on the same machine reach it by the service's name.
    assert is_taken(root, "fleet", served="inside.pem")
    # Who trusts the federation's CA alone does not take it; its services are reached all the same.
    assert not is_taken(root, NAME, "ca/ca.crt")
    trusted = (root / "trust/ca.crt").read_bytes()
    assert (root / "ca/ca.crt").read_bytes() in trusted
    assert own_files.root.pem() in trusted
    for folder in ("server-tls", "fleet-tls"):
        assert (root / folder / "ca.crt").read_bytes() == (root / "ca/ca.crt").read_bytes()
    pem = (root / "fleet-tls/tls.pem").read_bytes()
    assert own_files.intermediate.pem() in pem
    assert (root / "fleet-tls/tls.pem").stat().st_mode & 0o777 == 0o600
    provision(settings)
    assert (root / "fleet-tls/tls.pem").read_bytes() == pem


def test_a_wildcard_fits_and_a_renewed_one_is_taken(
    make_settings: MakeSettings, own_files: OwnFiles
) -> None:
    settings = make_settings(
        federation_names=NAME, **own_files.write(names=("*.hospital.example",))
    )
    provision(settings)
    pem = settings.federation_dir / "fleet-tls/tls.pem"
    first = pem.read_bytes()
    own_files.write()
    provision(settings)
    assert pem.read_bytes() != first
    assert is_taken(settings.federation_dir, NAME)


def test_without_it_again_the_federations_own_is_back(
    make_settings: MakeSettings, own_files: OwnFiles
) -> None:
    provision(make_settings(federation_names=NAME, **own_files.write()))
    null = Path(os.devnull)
    settings = make_settings(
        federation_names=NAME, tls_certificate_file=null, tls_key_file=null, tls_ca_file=null
    )
    provision(settings)
    root = settings.federation_dir
    assert is_taken(root, "fleet", "ca/ca.crt")
    assert is_taken(root, NAME, "ca/ca.crt")
    assert (root / "trust/ca.crt").read_bytes() == (root / "ca/ca.crt").read_bytes()


def test_no_private_key_among_the_cas_gets_to_the_sites(
    make_settings: MakeSettings, own_files: OwnFiles
) -> None:
    together = own_files.root.key_pem() + own_files.root.pem()
    settings = make_settings(federation_names=NAME, **own_files.write(authorities=together))
    provision(settings)
    assert b"PRIVATE" not in (settings.federation_dir / "trust/ca.crt").read_bytes()


def test_one_file_may_have_both(make_settings: MakeSettings, own_files: OwnFiles) -> None:
    files = own_files.write()
    both = files["tls_certificate_file"].read_bytes() + files["tls_key_file"].read_bytes()
    for name in ("tls_certificate_file", "tls_key_file"):
        files[name].write_bytes(both)
    settings = make_settings(federation_names=NAME, **files)
    provision(settings)
    pem = (settings.federation_dir / "fleet-tls/tls.pem").read_bytes()
    assert pem.count(b"BEGIN CERTIFICATE") == 2
    assert pem.count(b"PRIVATE KEY") == 2
    assert is_taken(settings.federation_dir, NAME)


def test_one_that_ends_soon_is_taken_and_told(
    make_settings: MakeSettings, own_files: OwnFiles, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings(federation_names=NAME, **own_files.write(ends=NOW + 20 * DAY))
    provision(settings)
    assert f"is valid until {NOW + 20 * DAY:%Y-%m-%d}: renew it" in caplog.text


def refused(
    make_settings: MakeSettings, files: dict[str, Path], message: str, names: str = NAME
) -> None:
    settings = make_settings(federation_names=names, **files)
    with pytest.raises(CloisterError, match=message):
        provision(settings)
    assert not settings.federation_dir.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chain": False}, "does not lead to a CA in .*: add the intermediate certificates"),
        ({"ends": NOW - DAY}, "has ended: renew it"),
        ({"ends": NOW + timedelta(days=101)}, "is not valid yet: see that the clock is right"),
        ({"names": ("other.example",)}, f"is not for {NAME}: have one made for every name"),
        ({"key": b"not a key"}, "are no TLS certificate and its private key"),
        ({"authorities": b"not a certificate"}, "CLOISTER_TLS_CA_FILE: .* has no PEM certificate"),
        ({"key": b""}, "needs all of CLOISTER_TLS_CERTIFICATE_FILE, .*, and one is empty"),
    ],
)
def test_what_sites_would_refuse_is_refused_before_anything_is_made(
    make_settings: MakeSettings, own_files: OwnFiles, changes: dict[str, Any], message: str
) -> None:
    refused(make_settings, own_files.write(**changes), message)


def test_another_certificates_key_is_refused(
    make_settings: MakeSettings, own_files: OwnFiles
) -> None:
    files = own_files.write(key=own_files.root.key_pem())
    refused(make_settings, files, "are no TLS certificate and its private key")


def test_a_key_with_a_pass_phrase_is_refused_and_not_asked_for(
    make_settings: MakeSettings, own_files: OwnFiles, authorities: tuple[Signed, Signed]
) -> None:
    server = signed("server", authorities[1], names=(NAME,))
    files = own_files.write(key=server.key_pem(b"secret"))
    files["tls_certificate_file"].write_bytes(server.pem() + authorities[1].pem())
    refused(make_settings, files, "the key without a pass phrase")


def test_another_ca_is_refused(make_settings: MakeSettings, own_files: OwnFiles) -> None:
    files = own_files.write(authorities=signed("Another root").pem())
    refused(make_settings, files, "does not lead to a CA in .*, or the CA that signed it")


def test_every_name_must_fit(make_settings: MakeSettings, own_files: OwnFiles) -> None:
    names = f"{NAME}, 192.0.2.7"
    refused(make_settings, own_files.write(), r"is not for 192\.0\.2\.7", names)


def test_without_a_name_there_is_nothing_to_check(
    make_settings: MakeSettings, own_files: OwnFiles
) -> None:
    refused(make_settings, own_files.write(), "set CLOISTER_FEDERATION_NAMES", "")


def test_a_file_that_is_not_there_is_named(
    make_settings: MakeSettings, own_files: OwnFiles
) -> None:
    files = own_files.write()
    files["tls_key_file"].unlink()
    refused(make_settings, files, "CLOISTER_TLS_KEY_FILE: .* cannot be read")


def test_one_setting_alone_is_no_certificate(own_files: OwnFiles) -> None:
    files = own_files.write()
    with pytest.raises(ValidationError, match="needs all of CLOISTER_TLS_CERTIFICATE_FILE"):
        Settings(tls_certificate_file=files["tls_certificate_file"])
