"""A run of the one-shot: what it makes, keeps, renews and refuses."""

import os
import re
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from cloister_provision.__main__ import checked_names, provision
from cloister_provision.authority import LIFETIME, RENEWAL, Authority, open_authority
from cloister_provision.certificates import Place, ensure_certificate
from cloister_provision.settings import Settings
from cloister_shared.errors import CloisterError
from cloister_shared.files import locked
from cloister_shared.joining import (
    read_join_tokens,
    token_digest,
    withdraw_join_token,
)
from cloister_shared.tls import verify_server

MakeSettings = Callable[..., Settings]
SECRETS = {
    "ca/ca.key",
    "control/superexec.secret",
    "dealer-tls/tls.key",
    "enrolment-tls/tls.key",
    "enrolment/join-tokens.json",
    "fleet-tls/inside.pem",
    "fleet-tls/tls.pem",
    "join/join.token",
    "server-tls/tls.key",
}
PUBLIC = {
    "ca/ca.crt",
    "dealer-tls/tls.crt",
    "enrolment-tls/tls.crt",
    "fleet-tls/ca.crt",
    "server-tls/ca.crt",
    "server-tls/tls.crt",
    "trust/ca.crt",
}
SERVED = {
    "server": ("server-tls/tls.crt", "server-tls/tls.key"),
    "dealer": ("dealer-tls/tls.crt", "dealer-tls/tls.key"),
    "enrolment": ("enrolment-tls/tls.crt", "enrolment-tls/tls.key"),
    "fleet": ("fleet-tls/tls.pem", "fleet-tls/tls.pem"),
}
DAY = timedelta(days=1)


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def contents(root: Path) -> dict[str, bytes]:
    """Every file under a folder but locks, by its path."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def changed(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    return {name for name in before | after if before.get(name) != after.get(name)}


def modes(root: Path, names: set[str]) -> set[int]:
    return {stat.S_IMODE((root / name).stat().st_mode) for name in names}


def is_served(root: Path, service: str, name: str) -> bool:
    """Whether who trusts trust/ca.crt takes the service at this name."""
    certificate, key = SERVED[service]
    try:
        verify_server(root / certificate, root / key, root / "trust" / "ca.crt", name)
    except ssl.SSLCertVerificationError:
        return False
    return True


def test_everything_is_made_and_taken_by_who_trusts_the_ca(make_settings: MakeSettings) -> None:
    settings = make_settings()
    before = os.umask(0)
    try:
        provision(settings)
    finally:
        os.umask(before)
    root = settings.federation_dir
    assert set(contents(root)) == SECRETS | PUBLIC
    assert modes(root, SECRETS) == {0o600}
    assert modes(root, PUBLIC) == {0o644}
    folders = {path.name: stat.S_IMODE(path.stat().st_mode) for path in root.iterdir()}
    assert folders.pop("trust") == 0o755
    assert set(folders.values()) == {0o700}
    for service in SERVED:
        for name in (service, "localhost", "127.0.0.1", "::1"):
            assert is_served(root, service, name), (service, name)
        assert not is_served(root, service, "other")
        assert not is_served(root, service, "10.0.0.1")
    assert not is_served(root, "dealer", "server")
    token = (root / "join/join.token").read_text().strip()
    (known,) = read_join_tokens(root / "enrolment/join-tokens.json")
    assert (known.name, known.digest) == ("compose", token_digest(token))
    assert known.is_usable(now() + 10_000 * DAY, used=10_000)
    assert token.encode() not in (root / "enrolment/join-tokens.json").read_bytes()
    assert len(bytes.fromhex((root / "control/superexec.secret").read_text())) == 32


def test_a_second_run_changes_nothing(make_settings: MakeSettings) -> None:
    settings = make_settings(federation_names="fl.hospital.example, 192.0.2.7")
    provision(settings)
    made = contents(settings.federation_dir)
    provision(settings)
    assert contents(settings.federation_dir) == made


def test_other_names_renew_the_one_certificate_that_has_them(make_settings: MakeSettings) -> None:
    settings = make_settings()
    provision(settings)
    made = contents(settings.federation_dir)
    names = "FL.Hospital.Example,192.0.2.7, 2001:DB8::1"
    provision(make_settings(federation_names=names))
    assert changed(made, contents(settings.federation_dir)) == {"fleet-tls/tls.pem"}
    for name in ("fleet", "fl.hospital.example", "192.0.2.7", "2001:db8::1"):
        assert is_served(settings.federation_dir, "fleet", name), name


def test_services_bear_their_names_in_a_domain_too(make_settings: MakeSettings) -> None:
    provision(make_settings())
    root = make_settings().federation_dir
    made = contents(root)
    provision(make_settings(service_domain="Cloister.svc.cluster.local"))
    assert changed(made, contents(root)) == {
        "fleet-tls/inside.pem",
        "fleet-tls/tls.pem",
        *(
            f"{name}-tls/tls.{end}"
            for name in ("server", "dealer", "enrolment")
            for end in ("crt", "key")
        ),
    }
    for service in SERVED:
        for name in (service, f"{service}.cloister.svc.cluster.local", "localhost"):
            assert is_served(root, service, name), name
        assert not is_served(root, service, "other.cloister.svc.cluster.local")


@pytest.mark.parametrize("domain", [".cluster.local", "cluster.local.", "a b", "*.local", "-x"])
def test_what_is_no_domain_is_refused_before_anything_is_made(
    make_settings: MakeSettings, domain: str
) -> None:
    settings = make_settings(service_domain=domain)
    with pytest.raises(CloisterError, match=r"CLOISTER_SERVICE_DOMAIN: .* is no DNS domain"):
        provision(settings)
    assert not settings.federation_dir.exists()


@pytest.mark.parametrize("lost", sorted((SECRETS | PUBLIC) - {"ca/ca.key"}))
def test_a_run_that_was_interrupted_is_completed(make_settings: MakeSettings, lost: str) -> None:
    """Each file missing in turn: what depends on it is made anew, and no other."""
    settings = make_settings()
    provision(settings)
    root = settings.federation_dir
    made = contents(root)
    (root / lost).unlink()
    provision(settings)
    after = contents(root)
    folder, _, name = lost.partition("/")
    remade = {
        # The same token is known again.
        "enrolment/join-tokens.json": {lost},
        "join/join.token": {lost, "enrolment/join-tokens.json"},
        "ca/ca.crt": {lost, "trust/ca.crt", "server-tls/ca.crt", "fleet-tls/ca.crt"},
    }
    expected = remade.get(lost, {lost})
    if name in ("tls.crt", "tls.key"):
        expected = {f"{folder}/tls.crt", f"{folder}/tls.key"}
    if name == "ca.crt" and folder != "ca":
        expected = set()
    # The time at which a token became known is all that this file can have changed in.
    tokens = {"enrolment/join-tokens.json"}
    assert changed(made, after) - tokens == expected - tokens
    assert all(is_served(root, service, service) for service in SERVED)


def test_a_renewal_that_was_interrupted_is_completed(make_settings: MakeSettings) -> None:
    """The key is there already, and the certificate is still the one before."""
    settings = make_settings()
    provision(settings)
    root = settings.federation_dir
    (root / "dealer-tls/tls.key").write_bytes((root / "server-tls/tls.key").read_bytes())
    provision(settings)
    assert is_served(root, "dealer", "dealer")


def test_a_ca_without_its_key_is_not_replaced_in_silence(make_settings: MakeSettings) -> None:
    settings = make_settings()
    provision(settings)
    root = settings.federation_dir
    (root / "ca/ca.key").unlink()
    made = contents(root)
    with pytest.raises(CloisterError, match=r"CA's key is missing: put .*ca\.key back from a copy"):
        provision(settings)
    assert contents(root) == made


@pytest.mark.parametrize("damage", [b"", b"not PEM", "half"])
@pytest.mark.parametrize("name", sorted(SECRETS | PUBLIC))
def test_a_damaged_file_is_mended_or_told(
    make_settings: MakeSettings, name: str, damage: bytes | str
) -> None:
    settings = make_settings()
    provision(settings)
    root = settings.federation_dir
    path = root / name
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if isinstance(damage, str) else damage)
    told = {
        "ca/ca.key": "the CA's key is damaged: put .* back from a copy",
        "join/join.token": "is no join token: remove it",
        "enrolment/join-tokens.json": "is damaged .*: put back a copy, or remove it",
        "control/superexec.secret": None if damage else "is empty: remove it",
    }
    if message := told.get(name):
        with pytest.raises(CloisterError, match=message):
            provision(settings)
        return
    provision(settings)
    assert all(is_served(root, service, service) for service in SERVED)


def test_another_cas_certificate_is_not_taken_for_its_own(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings, other = make_settings(), make_settings(federation_dir=tmp_path / "other")
    provision(settings)
    provision(other)
    certificate = (other.federation_dir / "ca/ca.crt").read_bytes()
    (settings.federation_dir / "ca/ca.crt").write_bytes(certificate)
    with pytest.raises(CloisterError, match="is not the certificate of the CA's key"):
        provision(settings)


def test_certificates_of_another_ca_are_replaced(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings, other = make_settings(), make_settings(federation_dir=tmp_path / "other")
    provision(settings)
    provision(other)
    root = settings.federation_dir
    for name in ("tls.crt", "tls.key"):
        content = (other.federation_dir / "dealer-tls" / name).read_bytes()
        (root / "dealer-tls" / name).write_bytes(content)
    provision(settings)
    assert is_served(root, "dealer", "dealer")


def write_dealers(root: Path, at: datetime) -> Authority:
    """Make the CA and the dealer's certificate as a run at that time would."""
    authority = open_authority(root / "ca", at)
    place = Place(root / "dealer-tls/tls.crt", root / "dealer-tls/tls.key")
    ensure_certificate(place, ("dealer", "localhost", "127.0.0.1", "::1"), authority, at)
    return authority


@pytest.mark.parametrize(
    ("left", "is_kept"), [(RENEWAL + DAY, True), (RENEWAL - DAY, False), (-DAY, False)]
)
def test_a_certificate_is_renewed_before_it_ends(
    make_settings: MakeSettings, left: timedelta, is_kept: bool
) -> None:
    settings = make_settings()
    root = settings.federation_dir
    write_dealers(root, now() - LIFETIME + left)
    made = contents(root)
    provision(settings)
    after = contents(root)
    assert after["ca/ca.crt"] == made["ca/ca.crt"]
    assert (after["dealer-tls/tls.crt"] == made["dealer-tls/tls.crt"]) is is_kept
    assert is_served(root, "dealer", "dealer")


@pytest.mark.parametrize("left", [RENEWAL - DAY, -DAY])
def test_a_ca_is_renewed_with_its_key_and_what_it_signed_stays_good(
    make_settings: MakeSettings, left: timedelta, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings()
    root = settings.federation_dir
    ends = now() + left
    old = open_authority(root / "ca", ends - timedelta(days=3650))
    assert abs(old.certificate.not_valid_after_utc - ends) < DAY
    provision(settings)
    assert "every site outside needs the new one" in caplog.text
    new = x509.load_pem_x509_certificate((root / "trust/ca.crt").read_bytes())
    assert new.public_key() == old.certificate.public_key()
    assert new.not_valid_after_utc > now() + 3000 * DAY
    # A service that was signed under the certificate before is taken by who has the one after.
    assert all(is_served(root, service, service) for service in SERVED)
    certificate = x509.load_pem_x509_certificate((root / "dealer-tls/tls.crt").read_bytes())
    certificate.verify_directly_issued_by(old.certificate)


def test_no_certificate_outlives_its_ca(tmp_path: Path) -> None:
    authority = write_dealers(tmp_path, now())
    later = authority.certificate.not_valid_after_utc - RENEWAL - DAY
    place = Place(tmp_path / "dealer-tls/tls.crt", tmp_path / "dealer-tls/tls.key")
    ensure_certificate(place, ("dealer",), authority, later)
    certificate = x509.load_pem_x509_certificate(place.certificate.read_bytes())
    assert certificate.not_valid_after_utc == authority.certificate.not_valid_after_utc


def test_secrets_that_others_could_read_are_taken_away_from_them(
    make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings()
    provision(settings)
    root = settings.federation_dir
    for name in SECRETS:
        (root / name).chmod(0o644)
    made = contents(root)
    provision(settings)
    assert modes(root, SECRETS) == {0o600}
    assert contents(root) == made
    assert caplog.text.count("was readable by others") == len(SECRETS)


def test_a_withdrawn_join_token_stays_so_until_its_file_is_removed(
    make_settings: MakeSettings,
) -> None:
    settings = make_settings()
    provision(settings)
    tokens = settings.federation_dir / "enrolment/join-tokens.json"
    assert withdraw_join_token(tokens, "compose")
    provision(settings)
    (known,) = read_join_tokens(tokens)
    assert known.withdrawn
    (settings.federation_dir / "join/join.token").unlink()
    provision(settings)
    (new,) = read_join_tokens(tokens)
    assert not new.withdrawn
    assert new.digest != known.digest


NAME = st.from_regex(
    r"[A-Za-z0-9]([A-Za-z0-9-]{0,20}[A-Za-z0-9])?(\.[a-z0-9]{1,20}){0,3}", fullmatch=True
)
ADDRESS = st.ip_addresses().map(str)


@given(st.lists(st.one_of(NAME, ADDRESS), max_size=5))
def test_host_names_and_addresses_are_taken_in_their_usual_form(names: list[str]) -> None:
    settings = Settings(federation_names=" , ".join(names))
    once = checked_names(settings.names)
    assert len(once) == len(names)
    assert checked_names(once) == once
    assert once == tuple(name.lower() for name in once)


@given(st.text(min_size=1))
def test_any_other_text_is_refused_or_a_name(text: str) -> None:
    with suppress(CloisterError):
        (name,) = checked_names((text,))
        assert name.isascii()
        assert not set(name) & set(" ,/\\\n\0*_@")


@pytest.mark.parametrize(
    "names", ["https://fl.example", "fl.example:8443", "*.example", "a b", "-x", "über.example"]
)
def test_what_is_no_name_is_refused_before_anything_is_made(
    make_settings: MakeSettings, names: str
) -> None:
    settings = make_settings(federation_names=names)
    with pytest.raises(CloisterError, match=r"CLOISTER_FEDERATION_NAMES: .* no host name"):
        provision(settings)
    assert not settings.federation_dir.exists()


def start(folder: Path, **settings: object) -> "subprocess.Popen[str]":
    environment = os.environ | {"CLOISTER_FEDERATION_DIR": str(folder)}
    environment |= {f"CLOISTER_{name.upper()}": str(value) for name, value in settings.items()}
    return subprocess.Popen(
        [sys.executable, "-m", "cloister_provision"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_at_once_make_one_ca_and_tell_no_secret(tmp_path: Path) -> None:
    running = [start(tmp_path) for _ in range(2)]
    logs = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], logs
    assert all(is_served(tmp_path, service, service) for service in SERVED)
    for name in ("join/join.token", "control/superexec.secret"):
        secret = (tmp_path / name).read_text().strip()
        assert not any(secret in log for log in logs)


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="the kernel does not list locks")
def test_a_second_waits_for_the_first(tmp_path: Path) -> None:
    with locked(tmp_path / "ca" / "ca.crt"):
        process = start(tmp_path)
        waiting = re.compile(rf"-> FLOCK .* {process.pid} ")
        while not waiting.search(Path("/proc/locks").read_text()):
            assert process.poll() is None, "it did not wait"
            time.sleep(0.02)
        authority = open_authority(tmp_path / "ca", now())
    _, log = process.communicate()
    assert process.returncode == 0, log
    certificate = x509.load_pem_x509_certificate((tmp_path / "trust/ca.crt").read_bytes())
    assert certificate == authority.certificate


def test_a_volume_that_cannot_be_written_is_told_with_what_to_do() -> None:
    # Nobody makes folders there, the administrator neither.
    process = start(Path("/sys/cloister"))
    _, log = process.communicate()
    assert process.returncode == 1
    assert "start again" in log
    assert "Traceback" not in log
