"""API keys, the file of their digests, and the command that manages them."""

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloister_inference.access.credentials import ApiKey, ApiKeyStore, KeyRing, read_keys
from cloister_shared.digests import digest_bytes
from cloister_shared.errors import CloisterError

TOKEN = re.compile(r"cloister_[0-9a-f]{8}_[0-9a-f]{64}\n")

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "access" / "api-keys.json"


@pytest.fixture
def command(path: Path) -> Command:
    """The real command, in a process of its own."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cloister_inference.api_keys", *arguments],
            env=os.environ | {"CLOISTER_API_KEYS_PATH": str(path)} | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def names(path: Path) -> list[str]:
    return [key.name for key in read_keys(path)]


def test_a_key_is_created_listed_and_revoked(command: Command, path: Path) -> None:
    assert command("list").stdout.split() == ["NAME", "ID", "CREATED", "LIMIT", "OPERATOR"]
    created = command("create", "hospital-a", "--rate", "100/minute")
    assert created.returncode == 0, created.stderr
    assert TOKEN.fullmatch(created.stdout)
    token = created.stdout.strip()
    assert token not in created.stderr
    assert command("create", "hospital-b").returncode == 0

    first, second = (line.split() for line in command("list").stdout.splitlines()[1:])
    assert (first[0], first[1], first[3]) == ("hospital-a", token.split("_")[1], "100/minute")
    assert (second[0], second[3]) == ("hospital-b", "-")
    found = KeyRing(read_keys(path)).find(token)
    assert found
    assert (found.name, found.rate) == ("hospital-a", "100/minute")
    assert found.created.tzinfo == UTC

    assert command("revoke", "hospital-a").returncode == 0
    assert names(path) == ["hospital-b"]
    assert KeyRing(read_keys(path)).find(token) is None
    assert command("revoke", "hospital-b").returncode == 0
    assert names(path) == []


def test_no_other_key_is_revoked(path: Path) -> None:
    store = ApiKeyStore(path)
    for name in ("a", "b", "c"):
        store.create(name, None)
    store.revoke("b")
    assert names(path) == ["a", "c"]


def test_the_file_is_its_owners_and_holds_no_key(command: Command, path: Path) -> None:
    umask = os.umask(0)
    try:
        token = command("create", "a").stdout.strip()
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content = path.read_text()
    assert token.split("_")[2] not in content
    assert digest_bytes(token.encode()) in content


def test_keys_that_are_created_at_the_same_time_are_all_kept(command: Command, path: Path) -> None:
    wanted = [f"site-{number}" for number in range(8)]
    with ThreadPoolExecutor(len(wanted)) as pool:
        created = list(pool.map(lambda name: command("create", name), wanted))
    assert [done.returncode for done in created] == [0] * len(wanted)
    assert sorted(names(path)) == wanted
    ring = KeyRing(read_keys(path))
    found = [ring.find(done.stdout.strip()) for done in created]
    assert [key.name if key else None for key in found] == wanted


@pytest.mark.parametrize(
    ("name", "rate", "complaint"),
    [
        ("Hospital", None, "lower-case"),
        ("a_b", None, "lower-case"),
        ("-a", None, "lower-case"),
        ("a-", None, "lower-case"),
        ("", None, "lower-case"),
        ("a" * 64, None, "lower-case"),
        ("a\n", None, "lower-case"),
        ("\u0661", None, "lower-case"),
        ("anonymous", None, "anonymous"),
        ("taken", None, "already"),
        ("a", "100", "N/minute"),
        ("a", "0/minute", "N/minute"),
        ("a", "1/hour", "N/minute"),
        ("a", "100000/second", "N/minute"),
        ("a", "", "N/minute"),
    ],
)
def test_a_key_that_cannot_be_is_not_created(
    path: Path, name: str, rate: str | None, complaint: str
) -> None:
    store = ApiKeyStore(path)
    store.create("taken", None)
    before = path.read_bytes()
    with pytest.raises(CloisterError, match=complaint):
        store.create(name, rate)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("create", "Hospital"), 1, "lower-case"),
        (("revoke", "unknown"), 1, "no API key"),
        (("delete", "taken"), 2, "invalid choice"),
        ((), 2, "required"),
    ],
)
def test_what_cannot_be_done_is_said(
    command: Command, path: Path, arguments: tuple[str, ...], code: int, complaint: str
) -> None:
    done = command(*arguments)
    assert done.returncode == code
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not path.exists()


def test_the_command_needs_to_know_the_file(command: Command) -> None:
    done = command("list", CLOISTER_API_KEYS_PATH="")
    assert done.returncode == 1
    assert "CLOISTER_API_KEYS_PATH" in done.stderr


@pytest.mark.parametrize("action", [("create", "b"), ("revoke", "a"), ("list",)])
def test_a_damaged_file_is_left_as_it_is(
    command: Command, path: Path, action: tuple[str, ...]
) -> None:
    ApiKeyStore(path).create("a", None)
    damaged = path.read_bytes()[:-4]
    path.write_bytes(damaged)
    done = command(*action)
    assert done.returncode == 1
    assert "no file of API keys" in done.stderr
    assert path.read_bytes() == damaged


def entry(**changes: Any) -> dict[str, Any]:
    return {
        "id": "0123abcd",
        "name": "a",
        "digest": "0" * 64,
        "created": "2025-01-01T00:00:00Z",
        "rate": "1/second",
    } | changes


def test_the_form_of_the_file(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(json.dumps({"version": 1, "keys": [entry()]}))
    (key,) = read_keys(path)
    created = datetime(2025, 1, 1, tzinfo=UTC)
    assert key == ApiKey(id="0123abcd", name="a", digest="0" * 64, created=created, rate="1/second")


@pytest.mark.parametrize(
    "content",
    [
        {"version": 2, "keys": []},
        {"version": "1", "keys": []},
        {"version": 1, "keys": {}},
        {"version": 1, "keys": [], "more": 1},
        *(
            {"version": 1, "keys": [entry(**changes)]}
            for changes in (
                {"id": "0123ABCD"},
                {"id": 1234},
                {"id": "0123abcd\n"},
                {"name": "A"},
                {"name": "anonymous"},
                {"digest": "0" * 63},
                {"digest": "g" * 64},
                {"created": "yesterday"},
                {"created": "2025-01-01T00:00:00"},
                {"rate": "many"},
                {"rate": 5},
                {"more": 1},
            )
        ),
        {"version": 1, "keys": [entry(), entry(id="00000000")]},
        {"version": 1, "keys": [entry(), entry(name="b")]},
        [],
        None,
    ],
    ids=str,
)
def test_another_form_is_refused(path: Path, content: Any) -> None:
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    with pytest.raises(CloisterError, match="no file of API keys") as caught:
        read_keys(path)
    # Pydantic would repeat what it was given.
    assert "0" * 60 not in str(caught.value)


def test_a_file_without_end_is_not_read(path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to("/dev/zero")
    with pytest.raises(CloisterError, match="larger"):
        read_keys(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
CHANGES = st.dictionaries(st.sampled_from([*entry(), "other"]), JSON, max_size=3)
DOCUMENTS = st.binary(max_size=200) | st.one_of(
    JSON,
    st.builds(lambda changes: {"version": 1, "keys": [entry(**changes)]}, CHANGES),
    st.builds(lambda value: {"version": value, "keys": [entry()]}, JSON),
).map(lambda value: json.dumps(value).encode())


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=DOCUMENTS)
def test_any_content_is_keys_or_a_clear_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "any.json"
    file.write_bytes(content)
    with suppress(CloisterError):
        assert all(isinstance(key, ApiKey) for key in read_keys(file))


@given(text=st.text() | st.text("cloister_0123456789abcdef", max_size=90))
def test_no_other_text_is_a_key(text: str) -> None:
    assert KeyRing([ApiKey.model_validate_json(json.dumps(entry()))]).find(text) is None


def test_a_key_with_anything_changed_is_none(path: Path) -> None:
    token = ApiKeyStore(path).create("a", None)
    ring = KeyRing(read_keys(path))
    assert ring.find(token)
    for position in range(len(token)):
        other = "1" if token[position] == "0" else "0"
        assert ring.find(token[:position] + other + token[position + 1 :]) is None
        assert ring.find(token[:position] + token[position + 1 :]) is None
    for changed in (token + "0", token + "\n", " " + token, token.upper(), ""):
        assert ring.find(changed) is None
