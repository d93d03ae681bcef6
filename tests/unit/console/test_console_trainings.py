"""Trainings as the console tells them, by events that are being written, damaged or deleted."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloister_console.settings import Settings
from cloister_console.trainings import READ_BYTES, Trainings
from cloister_trainer.events import EventLog, run_events

WAITING = {"expected": 3, "model": "digits", "estimator": "LogisticRegression"}


def write(log: EventLog, *events: str) -> None:
    for event in events:
        log.write(event, **(WAITING if event == "waiting" else {}))


def read(console: TestClient, run: int, offset: int = 0) -> Any:
    answer = console.get(f"/api/trainings/{run}/events", params={"offset": offset})
    return answer.raise_for_status().json()


def test_without_a_folder_there_are_none(tmp_path: Path) -> None:
    assert Trainings(tmp_path / "none").summaries() == []


def test_what_the_trainer_writes_is_told_while_it_writes(
    console: TestClient, events_dir: Path
) -> None:
    log = run_events(events_dir, 7)
    held = log.hold()
    write(log, "waiting")
    log.write("started", sites=3, expected=3, rounds=5)
    first = read(console, 7)
    assert [event["event"] for event in first["events"]] == ["waiting", "started"]
    assert first["writing"]
    log.write("round", round=1, rounds=5, sites=3)
    (listed,) = console.get("/api/trainings").json()
    assert listed["state"] == "running"
    assert (listed["id"], listed["model"], listed["round"], listed["rounds"]) == (
        "7",
        "digits",
        1,
        5,
    )
    then = read(console, 7, first["offset"])
    assert [event["event"] for event in then["events"]] == ["round"]
    os.close(held)
    assert not read(console, 7, then["offset"])["writing"]
    assert console.get("/api/trainings").json()[0]["state"] == "interrupted"


@pytest.mark.parametrize("end", ["published", "failed"])
def test_a_training_that_has_ended_says_how(
    console: TestClient, events_dir: Path, end: str
) -> None:
    write(run_events(events_dir, 1), "waiting", end, "log")
    assert console.get("/api/trainings").json()[0]["state"] == end


def test_reading_does_not_keep_the_trainer_from_writing_or_seem_to_write(
    console: TestClient, events_dir: Path
) -> None:
    log = run_events(events_dir, 1)
    write(log, "waiting")
    read(console, 1)
    assert not log.has_writer()


def test_the_one_written_last_is_first(console: TestClient, events_dir: Path) -> None:
    for run in (1, 2, 3):
        write(run_events(events_dir, run), "waiting")
        os.utime(events_dir / f"run-{run}.jsonl", (run % 3, run % 3))
    assert [one["id"] for one in console.get("/api/trainings").json()] == ["2", "1", "3"]


def test_an_event_that_is_just_being_written_is_told_when_it_is_complete(
    console: TestClient, events_dir: Path
) -> None:
    path = events_dir / "run-1.jsonl"
    path.write_text('{"event": "waiting"}\n{"event": "star')
    first = read(console, 1)
    assert [event["event"] for event in first["events"]] == ["waiting"]
    with path.open("a") as stream:
        stream.write('ted"}\n')
    assert read(console, 1, first["offset"])["events"] == [{"event": "started"}]


def test_lines_that_are_no_events_are_counted_and_left_out(
    console: TestClient, events_dir: Path
) -> None:
    lines = ["", "{", "[]", '{"event": 1}', '{"event": "round", "loss": NaN}', "[" * 90_000, "\0"]
    (events_dir / "run-1.jsonl").write_text("\n".join([*lines, '{"event": "final"}', ""]))
    told = read(console, 1)
    assert told["events"] == [{"event": "final"}]
    assert told["skipped"] == len(lines)
    assert console.get("/api/trainings").json()[0]["state"] == "interrupted"


def test_a_file_that_begins_anew_is_told_from_its_beginning(
    console: TestClient, events_dir: Path
) -> None:
    log = run_events(events_dir, 1)
    write(log, "waiting", "log", "log")
    offset = read(console, 1)["offset"]
    assert console.get("/api/trainings").json()[0]["model"] == "digits"
    (events_dir / "run-1.jsonl").write_text('{"event": "failed"}\n')
    told = read(console, 1, offset)
    assert told["restarted"]
    assert told["events"] == [{"event": "failed"}]
    assert console.get("/api/trainings").json()[0]["model"] is None


def test_thousands_of_events_come_in_stretches(console: TestClient, events_dir: Path) -> None:
    count = 2 * READ_BYTES // 64
    with (events_dir / "run-1.jsonl").open("w") as stream:
        for number in range(count):
            stream.write(json.dumps({"event": "log", "message": f"{number:64}"}) + "\n")
    offset, seen, answers, more = 0, 0, 0, True
    while more:
        told = read(console, 1, offset)
        seen += len(told["events"])
        offset, more, answers = told["offset"], told["more"], answers + 1
    assert seen == count
    assert answers > 2


@pytest.mark.parametrize("run", ["2", "x", "..%2f..%2fsecret", "1" * 40])
def test_a_run_that_is_not_there_or_was_deleted_is_not_found(
    console: TestClient, events_dir: Path, run: str
) -> None:
    for name in ("secret.jsonl", "run-x.jsonl", f"run-{'1' * 40}.jsonl"):
        (events_dir / name).write_text('{"event": "waiting"}\n')
    answer = console.get(f"/api/trainings/{run}/events")
    assert answer.status_code == 404


def test_deleting_one_leaves_the_others(console: TestClient, events_dir: Path) -> None:
    for run in (1, 2):
        write(run_events(events_dir, run), "waiting")
    assert len(console.get("/api/trainings").json()) == 2
    (events_dir / "run-1.jsonl").unlink()
    assert [one["id"] for one in console.get("/api/trainings").json()] == ["2"]
    answer = console.get("/api/trainings/1/events")
    assert answer.status_code == 404
    assert "deleted" in answer.json()["detail"]


@pytest.mark.parametrize("offset", ["-1", "x", str(1 << 60)])
def test_an_offset_is_a_number_of_bytes(console: TestClient, events_dir: Path, offset: str) -> None:
    write(run_events(events_dir, 1), "waiting")
    assert console.get("/api/trainings/1/events", params={"offset": offset}).status_code == 422


def test_what_cannot_be_read_is_said_without_its_path(events_dir: Path, tmp_path: Path) -> None:
    from cloister_console.app import create_app  # noqa: PLC0415

    (events_dir / "run-1.jsonl").mkdir()
    app = create_app(Settings(events_dir=events_dir))
    client = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)
    answer = client.get("/api/trainings/1/events")
    assert answer.status_code == 503
    assert str(tmp_path) not in answer.text
    assert client.get("/api/trainings").json() == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
FIELDS = st.dictionaries(
    st.sampled_from(["time", "model", "estimator", "round", "rounds", "after", "level"]), JSON
)
KINDS = st.sampled_from(["waiting", "started", "resumed", "round", "log", "published", "other"])


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(st.tuples(KINDS, FIELDS), max_size=6))
def test_events_of_any_content_are_told_as_they_are(
    console: TestClient, events_dir: Path, events: list[tuple[str, dict[str, Any]]]
) -> None:
    written = [{**fields, "event": kind} for kind, fields in events]
    (events_dir / "run-1.jsonl").write_text("".join(json.dumps(one) + "\n" for one in written))
    assert read(console, 1)["events"] == written
    (listed,) = console.get("/api/trainings").json()
    assert listed["id"] == "1"
