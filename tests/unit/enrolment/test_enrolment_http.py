"""What sites may ask, and how each is answered."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from federation_of_sites import DAY, START, Clock, MemorySuperLink, invite, public_key
from httpx import Response
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from cloister_enrolment.admission import Admission, TokenError
from cloister_enrolment.app import BODY_BYTES
from cloister_enrolment.attempts import PER_MINUTE, Attempts
from cloister_enrolment.nodes import read_nodes
from cloister_enrolment.public_key import read_public_key
from cloister_shared.joining import ENROL_PATH, HEALTH_PATH, make_token, withdraw_join_token

TOKENS = "join-tokens.json"


def enrol(http: TestClient, token: str, key: str, name: str = "site-a") -> Response:
    answer: Response = http.post(
        ENROL_PATH,
        json={"public_key": key, "name": name},
        headers={"Authorization": f"Bearer {token}"},
    )
    return answer


def test_a_site_with_a_token_is_registered_and_known_again(
    http: TestClient, superlink: MemorySuperLink, tmp_path: Path
) -> None:
    token, kept = invite(tmp_path, "compose")
    key = public_key()
    first = enrol(http, token, key)
    assert first.status_code == 201
    (number,) = superlink.nodes.values()
    assert list(superlink.names.values()) == ["site-a"]
    assert first.json() == {"node_id": str(number)}
    again = enrol(http, token, key)
    assert (again.status_code, again.json()) == (200, first.json())
    (node,) = read_nodes(tmp_path / "nodes.json")
    assert (node.name, node.token, node.node_id) == ("site-a", kept.digest, str(number))
    assert (tmp_path / "nodes.json").stat().st_mode & 0o777 == 0o600


def test_after_the_superlink_has_forgotten_it_a_site_is_registered_anew(
    http: TestClient, superlink: MemorySuperLink, tmp_path: Path, clock: Clock
) -> None:
    token, _ = invite(tmp_path, "site-a", days=7, uses=1)
    key = public_key()
    first = enrol(http, token, key).json()
    superlink.forget()
    # By now the token enrols nobody else.
    clock.now = START + 8 * DAY
    again = enrol(http, token, key)
    assert again.status_code == 200
    assert again.json() != first
    assert list(superlink.nodes.values()) == [int(again.json()["node_id"])]
    (node,) = read_nodes(tmp_path / "nodes.json")
    assert node.node_id == again.json()["node_id"]


def test_a_register_that_is_lost_costs_a_site_nothing(
    http: TestClient, superlink: MemorySuperLink, tmp_path: Path
) -> None:
    token, _ = invite(tmp_path, "compose")
    key = public_key()
    first = enrol(http, token, key)
    (tmp_path / "nodes.json").unlink()
    again = enrol(http, token, key)
    assert (again.status_code, again.json()) == (201, first.json())


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", "Bearer", "Bearer ", "Bearer x", "Basic eDp5"),
        pytest.param(f"Bearer {make_token()}", id="a token of no one's"),
    ],
)
def test_who_has_no_token_is_refused_and_not_listened_to(
    http: TestClient, superlink: MemorySuperLink, tmp_path: Path, header: str | None
) -> None:
    invite(tmp_path, "compose")
    answer = http.post(
        ENROL_PATH,
        content=b"not even JSON",
        headers={} if header is None else {"Authorization": header},
    )
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "this join token is not known here" in answer.json()["detail"]
    assert superlink.nodes == {}


def test_a_token_is_good_for_its_time_and_number_of_sites(
    http: TestClient, superlink: MemorySuperLink, tmp_path: Path, clock: Clock
) -> None:
    token, _ = invite(tmp_path, "two", days=7, uses=2)
    for name in ("a", "b"):
        assert enrol(http, token, public_key(), name).status_code == 201
    third = enrol(http, token, public_key(), "c")
    assert third.status_code == 401
    assert "has enrolled 2 of 2 sites: ask" in third.json()["detail"]
    token, _ = invite(tmp_path, "seven", days=7)
    clock.now = START + 7 * DAY
    late = enrol(http, token, public_key(), "d")
    assert late.status_code == 401
    assert "ended at 2030-01-08 00:00 UTC" in late.json()["detail"]
    token, _ = invite(tmp_path, "gone")
    withdraw_join_token(tmp_path / TOKENS, "gone")
    assert "was withdrawn" in enrol(http, token, public_key(), "e").json()["detail"]
    assert len(superlink.nodes) == 2


def test_a_token_that_is_over_does_not_let_in_keys_that_came_with_another(
    http: TestClient, tmp_path: Path, clock: Clock
) -> None:
    key = public_key()
    enrol(http, invite(tmp_path, "first")[0], key)
    over, _ = invite(tmp_path, "over", days=1)
    clock.now = START + 2 * DAY
    assert enrol(http, over, key).status_code == 401


def test_tokens_are_followed_while_their_file_changes(
    http: TestClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / TOKENS
    key = public_key()
    first, _ = invite(tmp_path, "first")
    assert enrol(http, first, key).status_code == 201
    second, _ = invite(tmp_path, "second")
    assert enrol(http, second, key).status_code == 200
    good = path.read_text()
    path.write_text("damaged")
    assert enrol(http, second, key).status_code == 200
    assert enrol(http, second, key).status_code == 200
    assert caplog.text.count("join tokens stay as they were") == 1
    path.write_text(good)
    third, _ = invite(tmp_path, "third")
    assert enrol(http, third, key).status_code == 200
    path.unlink()
    assert enrol(http, third, key).status_code == 401


def test_a_revoked_key_stays_out_whatever_token_it_brings(
    http: TestClient, superlink: MemorySuperLink, admission: Admission, tmp_path: Path
) -> None:
    token, _ = invite(tmp_path, "compose")
    key = public_key()
    enrol(http, token, key)
    assert [node.name for node in admission.revoke("site-a")] == ["site-a"]
    assert superlink.nodes == {}
    another, _ = invite(tmp_path, "another")
    for attempt in (token, another):
        answer = enrol(http, attempt, key)
        assert answer.status_code == 403
        assert "this site's key was revoked: ask" in answer.json()["detail"]
    # Nor where the SuperLink has forgotten that it removed it.
    superlink.forget()
    assert enrol(http, token, key).status_code == 403
    assert superlink.nodes == {}
    # The name is free for the site's new key.
    assert enrol(http, token, public_key()).status_code == 201


def test_a_key_that_the_superlink_has_removed_stays_out_although_the_register_is_lost(
    http: TestClient, admission: Admission, tmp_path: Path
) -> None:
    token, _ = invite(tmp_path, "compose")
    key = public_key()
    enrol(http, token, key)
    admission.revoke("site-a")
    (tmp_path / "nodes.json").unlink()
    assert enrol(http, token, key).status_code == 403
    # It takes neither a name nor a use of the token.
    assert read_nodes(tmp_path / "nodes.json") == ()


def test_a_token_that_is_withdrawn_while_a_site_waits_enrols_it_no_more(
    admission: Admission, superlink: MemorySuperLink, tmp_path: Path
) -> None:
    _, found = invite(tmp_path, "compose")
    withdraw_join_token(tmp_path / TOKENS, "compose")
    with pytest.raises(TokenError, match="was withdrawn"):
        admission.admit(found, read_public_key(public_key()), "site-a")
    _, found = invite(tmp_path, "replaced")
    invite(tmp_path, "replaced")
    with pytest.raises(TokenError, match="was withdrawn"):
        admission.admit(found, read_public_key(public_key()), "site-a")
    assert superlink.nodes == {}


def test_a_name_is_one_keys(http: TestClient, superlink: MemorySuperLink, tmp_path: Path) -> None:
    token, _ = invite(tmp_path, "compose")
    key = public_key()
    enrol(http, token, key)
    conflict = enrol(http, token, public_key())
    assert conflict.status_code == 409
    assert "take another CLOISTER_SITE_NAME" in conflict.json()["detail"]
    # A known key keeps the name it has in the register, and at a SuperLink that has forgotten it.
    superlink.forget()
    superlink.names.clear()
    assert enrol(http, token, key, "renamed").status_code == 200
    assert list(superlink.names.values()) == ["site-a"]
    assert [node.name for node in read_nodes(tmp_path / "nodes.json")] == ["site-a"]
    assert len(superlink.nodes) == 1


def openssh(key: Any) -> str:
    return str(key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode())


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_every_curve_that_flower_takes_is_taken(
    http: TestClient, tmp_path: Path, curve: ec.EllipticCurve
) -> None:
    token, _ = invite(tmp_path, "compose")
    assert enrol(http, token, public_key(curve)).status_code == 201


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(openssh(ed25519.Ed25519PrivateKey.generate()), id="Ed25519"),
        pytest.param(openssh(rsa.generate_private_key(65537, 2048)), id="RSA"),
        "",
        "ecdsa-sha2-nistp384 AAAA",
        "-----BEGIN PUBLIC KEY-----",
        "é" * 900,
    ],
)
def test_another_kind_of_key_is_refused(
    http: TestClient, superlink: MemorySuperLink, tmp_path: Path, key: str
) -> None:
    token, _ = invite(tmp_path, "compose")
    answer = enrol(http, token, key)
    assert answer.status_code == 422
    assert "public_key must be an EC key on P-256, P-384 or P-521" in answer.json()["detail"]
    assert superlink.nodes == {}


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "Invalid JSON"),
        (b"[]", "object"),
        (b"{}", "public_key: Field required"),
        (json.dumps({"public_key": "x" * 1001, "name": "a"}).encode(), "public_key: "),
        (json.dumps({"public_key": "x", "name": "../a"}).encode(), "name: "),
        (json.dumps({"public_key": "x", "name": "a", "more": 1}).encode(), "more: "),
        (b'{"public_key": "\\ud800", "name": "a"}', ""),
        (b"\xff\xfe", ""),
    ],
)
def test_a_body_that_is_no_request_is_refused(
    http: TestClient, tmp_path: Path, body: bytes, detail: str
) -> None:
    token, _ = invite(tmp_path, "compose")
    answer = http.post(ENROL_PATH, content=body, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 422
    assert detail in answer.json()["detail"]


def test_a_body_is_bounded_whether_or_not_its_length_is_told(
    http: TestClient, tmp_path: Path
) -> None:
    token, _ = invite(tmp_path, "compose")
    headers = {"Authorization": f"Bearer {token}"}

    def pieces() -> Iterator[bytes]:
        for _ in range(BODY_BYTES // 1000 + 1):
            yield b" " * 1000

    for content in (b" " * (BODY_BYTES + 1), pieces()):
        answer = http.post(ENROL_PATH, content=content, headers=headers)
        assert answer.status_code == 413


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(body=st.binary(max_size=300), token=st.text(st.characters(max_codepoint=255), max_size=40))
def test_nothing_that_is_sent_breaks_it(
    http: TestClient, superlink: MemorySuperLink, tmp_path: Path, body: bytes, token: str
) -> None:
    good, _ = invite(tmp_path, "compose")
    for bearer in (good, token):
        headers = {"Authorization": b"Bearer " + bearer.encode("latin-1")}
        answer = http.post(ENROL_PATH, content=body, headers=headers)
        assert answer.status_code in {401, 422, 429}
    assert superlink.nodes == {}


def test_while_the_superlink_is_away_a_site_is_asked_to_come_again(
    http: TestClient, superlink: MemorySuperLink, tmp_path: Path
) -> None:
    token, _ = invite(tmp_path, "one", uses=1)
    superlink.away = True
    key = public_key()
    answer = enrol(http, token, key)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    superlink.away = False
    assert enrol(http, token, key).status_code == 201
    assert enrol(http, token, key).status_code == 200


def test_what_the_superlink_may_have_taken_can_be_revoked(
    http: TestClient, superlink: MemorySuperLink, admission: Admission, tmp_path: Path
) -> None:
    token, _ = invite(tmp_path, "compose")
    key = public_key()
    superlink.answers = False
    assert enrol(http, token, key).status_code == 503
    superlink.answers = True
    assert len(superlink.nodes) == 1
    admission.revoke("site-a")
    assert superlink.nodes == {}
    assert enrol(http, token, key).status_code == 403


def test_a_damaged_register_lets_nobody_in_and_is_told(
    http: TestClient, superlink: MemorySuperLink, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token, _ = invite(tmp_path, "compose")
    (tmp_path / "nodes.json").write_text("{}{")
    answer = enrol(http, token, public_key())
    assert answer.status_code == 503
    assert str(tmp_path) not in answer.text
    assert "nodes.json is damaged" in caplog.text
    assert "those that were revoked must be revoked again" in caplog.text
    assert superlink.nodes == {}


def test_attempts_that_are_refused_are_bounded_and_good_tokens_are_not_kept_waiting(
    http: TestClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    statuses = [enrol(http, make_token(), public_key()).status_code for _ in range(2 * PER_MINUTE)]
    assert statuses[:PER_MINUTE] == [401] * PER_MINUTE
    assert 429 in statuses
    told = caplog.text.count("a join token that is not known")
    assert told == statuses.count(401)
    token, _ = invite(tmp_path, "compose")
    assert enrol(http, token, public_key()).status_code == 201


def test_a_bound_is_open_again_with_time() -> None:
    now = [0.0]
    attempts = Attempts(per_minute=2, clock=lambda: now[0])
    assert [attempts.allow() for _ in range(3)] == [True, True, False]
    now[0] = 31
    assert [attempts.allow() for _ in range(2)] == [True, False]
    now[0] = 10_000
    assert [attempts.allow() for _ in range(3)] == [True, True, False]


def test_the_log_tells_who_came_and_never_a_token(
    http: TestClient, admission: Admission, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token, _ = invite(tmp_path, "hospitals")
    wrong, key = make_token(), public_key()
    number = enrol(http, token, key).json()["node_id"]
    enrol(http, token, public_key())
    enrol(http, wrong, key)
    admission.revoke("site-a")
    enrol(http, token, key)
    (node,) = [node for node in read_nodes(tmp_path / "nodes.json") if node.revoked]
    assert f"enrolled site-a as node {number}, key {node.fingerprint}, join token hospitals" in (
        caplog.text
    )
    assert f"revoked site-a, node {number}, key {node.fingerprint}" in caplog.text
    assert f"refused site-a, key {node.fingerprint}: this site's key was revoked" in caplog.text
    assert node.fingerprint.startswith("SHA256:")
    for secret in (token, wrong):
        assert secret not in caplog.text
        assert secret[-32:] not in caplog.text


def test_health_and_nothing_else(http: TestClient) -> None:
    assert http.get(HEALTH_PATH).status_code == 200
    assert http.get(ENROL_PATH).status_code == 405
    for path in ("/", "/docs", "/openapi.json", "/enrolment/v1/tokens"):
        assert http.get(path).status_code == 404
