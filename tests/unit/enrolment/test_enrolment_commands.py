"""What a person does on the command line."""

import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from federation_of_sites import MemorySuperLink, invite, public_key

from cloister_enrolment import commands
from cloister_enrolment.admission import Admission, ConflictError
from cloister_enrolment.public_key import read_public_key
from cloister_enrolment.superlink import SuperLink, SuperLinkAwayError
from cloister_shared.errors import CloisterError
from cloister_shared.joining import JoinToken, read_join_tokens, token_digest

TOKENS = "join-tokens.json"


def run(folder: Path, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"CLOISTER_ENROLMENT_DIR": str(folder)}
    environment |= {f"CLOISTER_{name.upper()}": value for name, value in settings.items()}
    return subprocess.run(
        [sys.executable, "-m", "cloister_enrolment", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_invitation_is_printed_once_and_kept_as_a_digest(tmp_path: Path) -> None:
    done = run(tmp_path, "invite", "hospital-a", "--days", "3", "--uses", "2")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"cloister_join_[0-9a-f]{64}\n", done.stdout)
    token = done.stdout.strip()
    assert token not in done.stderr
    (kept,) = read_join_tokens(tmp_path / TOKENS)
    assert (kept.name, kept.digest, kept.uses) == ("hospital-a", token_digest(token), 2)
    assert kept.expires is not None
    assert timedelta(0) <= datetime.now(UTC) + timedelta(days=3) - kept.expires < timedelta(hours=1)
    assert token not in (tmp_path / TOKENS).read_text()
    assert (tmp_path / TOKENS).stat().st_mode & 0o777 == 0o600
    listed = run(tmp_path, "list")
    assert listed.returncode == 0
    assert re.search(r"^hospital-a +good +0/2 +\d{4}-", listed.stdout, re.MULTILINE)
    assert token not in listed.stdout


def test_an_invitation_anew_ends_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        commands.invite(tmp_path, "hospital-a", 7, 1)
    first, second = capsys.readouterr().out.split()
    (kept,) = read_join_tokens(tmp_path / TOKENS)
    assert kept.digest == token_digest(second) != token_digest(first)


@pytest.mark.parametrize(
    ("name", "days", "uses"),
    [("../x", 7, 1), ("", 7, 1), ("a", 7, 0), ("a", 1e9, 1), ("a", float("nan"), 1), ("a", -1, 1)],
)
def test_an_invitation_that_cannot_be_is_refused(
    tmp_path: Path, name: str, days: float, uses: int
) -> None:
    with pytest.raises(CloisterError, match="cannot be the name of a token, for"):
        commands.invite(tmp_path, name, days, uses)
    assert read_join_tokens(tmp_path / TOKENS) == ()


def test_the_name_of_provisions_token_is_taken(tmp_path: Path) -> None:
    with pytest.raises(CloisterError, match="compose is the token that provision makes"):
        commands.invite(tmp_path, "compose", 7, 1)


def admit(admission: Admission, token: JoinToken, name: str) -> str:
    key = read_public_key(public_key())
    admission.admit(token, key, name)
    return key.fingerprint


def test_tokens_and_sites_are_listed(
    tmp_path: Path,
    admission: Admission,
    superlink: MemorySuperLink,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, once = invite(tmp_path, "hospital-a", uses=1)
    _, always = invite(tmp_path, "many")
    first = admit(admission, once, "site-a")
    second = admit(admission, always, "site-b")
    admission.revoke("site-b")
    superlink.away = True
    with pytest.raises(SuperLinkAwayError):
        admit(admission, always, "site-c")
    commands.show(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["TOKEN", "STATE", "SITES", "UNTIL"]
    assert lines[1].split() == ["hospital-a", "over", "1/1", "-"]
    assert lines[2].split() == ["many", "good", "2/-", "-"]
    assert lines[5].split()[:2] == ["site-a", "enrolled"]
    assert lines[5].split()[3:] == ["hospital-a", first]
    assert lines[6].split() == ["site-b", "revoked", "2030-01-01", *lines[6].split()[3:5], second]
    assert lines[7].split()[:4] == ["site-c", "waits", "-", "many"]


def test_a_revocation_ends_token_and_site(
    tmp_path: Path, admission: Admission, superlink: MemorySuperLink
) -> None:
    _, token = invite(tmp_path, "hospital-a", uses=5)
    admit(admission, token, "hospital-a")
    admit(admission, token, "hospital-b")
    commands.revoke(tmp_path, admission, "hospital-a")
    assert len(superlink.nodes) == 1
    (kept,) = read_join_tokens(tmp_path / TOKENS)
    assert kept.withdrawn


def test_a_revocation_that_the_superlink_did_not_hear_of_is_told_and_can_be_repeated(
    tmp_path: Path, admission: Admission, superlink: MemorySuperLink
) -> None:
    _, token = invite(tmp_path, "compose")
    admit(admission, token, "site-a")
    superlink.away = True
    with pytest.raises(CloisterError, match=r"enrols no more, but .* run this again"):
        commands.revoke(tmp_path, admission, "site-a")
    # It is revoked all the same.
    with pytest.raises(SuperLinkAwayError):
        admission.revoke("site-a")
    superlink.away = False
    commands.revoke(tmp_path, admission, "site-a")
    assert superlink.nodes == {}
    commands.revoke(tmp_path, admission, "site-a")


def test_a_token_that_would_let_it_in_again_is_told(
    tmp_path: Path, admission: Admission, caplog: pytest.LogCaptureFixture
) -> None:
    _, many = invite(tmp_path, "many")
    _, once = invite(tmp_path, "once", uses=1)
    admit(admission, many, "site-a")
    admit(admission, once, "site-b")
    commands.revoke(tmp_path, admission, "site-b")
    assert "still enrols" not in caplog.text
    commands.revoke(tmp_path, admission, "site-a")
    assert "many, still enrols new keys: revoke many too" in caplog.text
    caplog.clear()
    commands.revoke(tmp_path, admission, "many")
    commands.revoke(tmp_path, admission, "site-a")
    assert "still enrols" not in caplog.text


def test_nobody_of_that_name_is_told(tmp_path: Path, admission: Admission) -> None:
    with pytest.raises(CloisterError, match="there is no token and no site 'nobody'; `list`"):
        commands.revoke(tmp_path, admission, "nobody")


def test_two_processes_of_one_register_do_not_lose_each_others_sites(
    tmp_path: Path, superlink: MemorySuperLink
) -> None:
    _, token = invite(tmp_path, "compose")
    for number, admission in enumerate([Admission(tmp_path, superlink) for _ in range(3)]):
        admit(admission, token, f"site-{number}")
    with pytest.raises(ConflictError):
        admit(Admission(tmp_path, superlink), token, "site-0")


@pytest.mark.parametrize("content", [None, "", "not PEM"])
def test_without_a_ca_nothing_is_asked(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.crt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CloisterError, match=r"CLOISTER_CA_PATH: .* has no CA certificate"):
        SuperLink("127.0.0.1:1", path)


def test_a_service_without_its_certificate_says_what_is_missing(tmp_path: Path) -> None:
    done = run(tmp_path, tls_certificate=str(tmp_path / "no.crt"))
    assert done.returncode == 1
    assert "CLOISTER_TLS_CERTIFICATE" in done.stderr
    assert "Traceback" not in done.stderr
