"""The id of a request is in what enrolment logs of it."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from cloister_shared.joining import ENROL_PATH

Lines = Callable[[], list[dict[str, Any]]]


@pytest.mark.parametrize(
    ("stated", "kept"),
    [(["mine"], True), (["x" * 129], False), (["a b"], False), (["a", "b"], False), ([], False)],
)
def test_a_line_tells_the_id_that_the_fleets_address_gave(
    http: TestClient, stated: list[str], kept: bool, json_lines: Lines
) -> None:
    headers = [("X-Request-Id", one) for one in stated] + [("Authorization", "Bearer nobody")]
    assert http.post(ENROL_PATH, headers=headers).status_code == 401
    (line,) = [one for one in json_lines() if one["logger"].startswith("cloister")]
    assert "join token" in line["message"]
    assert ([line["request_id"]] == stated) == kept
    assert 1 <= len(line["request_id"]) <= 128
