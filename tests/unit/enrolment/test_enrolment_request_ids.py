"""The id of a request is in what enrolment logs of it."""

import io
import json
import logging

import pytest
from fastapi.testclient import TestClient

from cloister_shared.joining import ENROL_PATH
from cloister_shared.logs import JsonFormatter


@pytest.mark.parametrize(
    ("stated", "kept"),
    [(["mine"], True), (["x" * 129], False), (["a b"], False), (["a", "b"], False), ([], False)],
)
def test_a_line_tells_the_id_that_the_fleets_address_gave(
    http: TestClient, stated: list[str], kept: bool
) -> None:
    logger, stream = logging.getLogger("cloister_enrolment"), io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter("enrolment"))
    logger.addHandler(handler)
    headers = [("X-Request-Id", one) for one in stated] + [("Authorization", "Bearer nobody")]
    try:
        assert http.post(ENROL_PATH, headers=headers).status_code == 401
    finally:
        logger.removeHandler(handler)
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert "join token" in line["message"]
    assert ([line["request_id"]] == stated) == kept
    assert 1 <= len(line["request_id"]) <= 128
