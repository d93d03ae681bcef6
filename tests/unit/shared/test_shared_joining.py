"""Join tokens: their form, and the file that provision and enrolment share."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cloister_shared.errors import CloisterError
from cloister_shared.joining import (
    EnrolmentRequest,
    JoinToken,
    add_join_token,
    make_token,
    read_join_tokens,
    token_digest,
    withdraw_join_token,
)

MOMENT = datetime(2030, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
MOMENTS = st.datetimes(timezones=st.just(UTC))
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,40}", fullmatch=True)


def kept(name: str, token: str | None = None) -> JoinToken:
    return JoinToken(name=name, digest=token_digest(token or make_token()), created=MOMENT)


def test_tokens_differ() -> None:
    assert len({make_token() for _ in range(100)}) == 100


@given(
    expires=st.none() | MOMENTS.filter(lambda moment: moment > MOMENT),
    uses=st.none() | st.integers(1, 5),
    withdrawn=st.booleans(),
    now=MOMENTS,
    used=st.integers(0, 6),
)
def test_a_token_is_good_within_all_of_its_bounds(
    expires: datetime | None, uses: int | None, withdrawn: bool, now: datetime, used: int
) -> None:
    token = kept("a").model_copy(update={"expires": expires, "uses": uses, "withdrawn": withdrawn})
    over = expires is not None and now >= expires
    used_up = uses is not None and used >= uses
    assert token.is_usable(now, used) is not (withdrawn or over or used_up)


def test_one_that_ends_before_it_begins_is_none() -> None:
    fields = kept("a").model_dump() | {"expires": MOMENT}
    with pytest.raises(ValidationError, match="good for some time"):
        JoinToken(**fields)


@given(st.lists(NAMES, unique=True, max_size=5))
def test_what_is_added_is_read_in_its_order(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    path = tmp_path_factory.mktemp("tokens") / "join-tokens.json"
    tokens = tuple(map(kept, names))
    for token in tokens:
        add_join_token(path, token)
    assert read_join_tokens(path) == tokens


def test_a_later_token_of_a_name_takes_the_place_of_the_earlier(tmp_path: Path) -> None:
    path = tmp_path / "join-tokens.json"
    for name in ("a", "b", "a"):
        add_join_token(path, kept(name))
    assert [token.name for token in read_join_tokens(path)] == ["b", "a"]


def test_one_is_withdrawn_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "join-tokens.json"
    for name in ("a", "b"):
        add_join_token(path, kept(name))
    assert withdraw_join_token(path, "a")
    assert not withdraw_join_token(path, "c")
    assert [token.withdrawn for token in read_join_tokens(path)] == [True, False]


def test_those_who_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "join-tokens.json"
    names = {f"site-{number}" for number in range(20)}
    threads = [threading.Thread(target=add_join_token, args=(path, kept(name))) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {token.name for token in read_join_tokens(path)} == names


@pytest.mark.parametrize("content", [b"", b"[]", b'{"version": 2}', b'{"tokens": [{}]}', b"\xff"])
def test_a_damaged_file_is_told_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "join-tokens.json"
    path.write_bytes(content)
    with pytest.raises(CloisterError, match="is damaged"):
        add_join_token(path, kept("a"))
    assert path.read_bytes() == content


def test_one_token_is_there_once(tmp_path: Path) -> None:
    path = tmp_path / "join-tokens.json"
    token = make_token()
    for name in ("a", "b"):
        add_join_token(path, kept(name, token))
    (only,) = read_join_tokens(path)
    assert only.name == "b"
    entry = only.model_dump_json()
    path.write_text(f'{{"tokens": [{entry}, {entry}]}}')
    with pytest.raises(CloisterError, match="twice"):
        read_join_tokens(path)


def test_a_file_does_not_grow_without_bound(tmp_path: Path) -> None:
    path = tmp_path / "join-tokens.json"
    path.write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(CloisterError, match="larger than 1 MiB"):
        read_join_tokens(path)


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "../a", "a\n", "é", "a" * 128])
def test_a_sites_name_is_plain(name: str) -> None:
    with pytest.raises(ValidationError):
        EnrolmentRequest(public_key="", name=name)
