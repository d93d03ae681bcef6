"""Log lines as JSON."""

import json
import logging
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cloister_shared.logs import JsonFormatter, about, configure_logging, write_once


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, as it was before, afterwards."""
    found = logging.getLogger()
    handlers, level = found.handlers[:], found.level
    yield found
    found.handlers[:] = handlers
    found.setLevel(level)


def line_of(record: logging.LogRecord) -> dict[str, Any]:
    (line,) = JsonFormatter("sample").format(record).splitlines()
    read: dict[str, Any] = json.loads(line)
    return read


def record_of(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    record = logging.LogRecord("a.b", logging.WARNING, "f", 1, message, arguments, None)
    vars(record).update(extra)
    return record


def test_a_line_has_its_time_in_utc_and_what_it_adds_and_nothing_else() -> None:
    record = record_of("%s\nlines", "two", count=2, color_message="x")
    line = line_of(record)
    told = datetime.fromisoformat(line.pop("time"))
    assert abs(told - datetime.fromtimestamp(record.created, UTC)).total_seconds() <= 0.001
    assert line == {
        "level": "WARNING",
        "service": "sample",
        "logger": "a.b",
        "message": "two\nlines",
        "count": 2,
    }


def test_a_line_has_its_traceback() -> None:
    record = record_of("it failed")
    try:
        raise ValueError("it\nbroke")
    except ValueError:
        record.exc_info = sys.exc_info()
    assert "ValueError: it\nbroke" in line_of(record)["exc_info"]


def test_what_json_has_no_form_for_is_told_as_text() -> None:
    assert line_of(record_of("at", path=Path("/models")))["path"] == "/models"


def test_a_line_tells_what_it_is_about_as_long_as_it_is() -> None:
    elsewhere = []
    with about(run_id=7):
        with about(request_id="mine"):
            inside = line_of(record_of("hello"))
        thread = threading.Thread(target=lambda: elsewhere.append(line_of(record_of("hello"))))
        thread.start()
        thread.join()
        outside = line_of(record_of("hello"))
    assert (inside["run_id"], inside["request_id"]) == (7, "mine")
    assert outside["run_id"] == 7
    assert "request_id" not in outside
    assert "run_id" not in elsewhere[0]
    assert "run_id" not in line_of(record_of("hello"))


def test_what_a_line_says_itself_goes_before() -> None:
    with about(run_id=7):
        assert line_of(record_of("hello", run_id=8))["run_id"] == 8


@pytest.mark.parametrize("form", ["text", "json"])
def test_every_line_has_the_form_that_was_asked_for_last(
    form: Any, root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("first", "text" if form == "json" else "json")
    configure_logging("sample", form)
    logging.getLogger("a.b").warning("hello")
    logging.getLogger("httpx").info("GET /secret")
    (shown,) = capsys.readouterr().err.splitlines()
    if form == "text":
        assert shown.endswith("Z WARNING sample: hello")
    else:
        line = json.loads(shown)
        assert (line["service"], line["message"]) == ("sample", "hello")


def test_a_library_writes_no_lines_of_its_own(
    root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    library = logging.getLogger("a.library")
    library.addHandler(logging.StreamHandler(sys.stderr))
    library.setLevel(logging.DEBUG)
    configure_logging("sample", "json")
    write_once("a.library")
    library.debug("too much")
    library.info("hello")
    (line,) = map(json.loads, capsys.readouterr().err.splitlines())
    assert (line["logger"], line["message"]) == ("a.library", "hello")
