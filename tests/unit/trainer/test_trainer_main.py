"""The one-shot itself, with scripts in the place of Flower's programs."""

import json
import logging
import os
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from cloister_provision.__main__ import provision
from cloister_provision.settings import Settings as ProvisionSettings
from cloister_shared.errors import CloisterError
from cloister_shared.logs import configure_logging
from cloister_shared.registry import Registry
from cloister_trainer import __main__ as trainer
from cloister_trainer import following
from cloister_trainer.__main__ import train_once
from cloister_trainer.plan import inputs_digest
from cloister_trainer.settings import Settings

MakeSettings = Callable[..., Settings]
NOBODY = "127.0.0.1:1"
"""Where nothing listens."""


def publish(settings: Settings, digest: str | None = None) -> None:
    def write(folder: Path) -> dict[str, Any]:
        (folder / "weights").write_text("1")
        return {}

    digest = digest or inputs_digest(settings)
    Registry(settings.models_dir).publish(settings.name, digest, write)


def test_a_published_training_is_not_done_again_and_needs_no_superlink(
    make_settings: MakeSettings,
) -> None:
    settings = make_settings(superlink=NOBODY)
    publish(settings)
    publish(settings, "of other settings")
    train_once(settings)
    registry = Registry(settings.models_dir)
    assert registry.versions("digits") == [1, 2]
    assert registry.current("digits") == 1


def test_a_published_training_that_was_rolled_back_from_stays_so(
    make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings(superlink=NOBODY)
    publish(settings, "of other settings")
    publish(settings)
    registry = Registry(settings.models_dir)
    registry.roll_back("digits")
    with caplog.at_level("INFO", "cloister_trainer"):
        train_once(settings)
    assert registry.current("digits") == 1
    assert "version 1 stays in use (rolled back from 2)" in caplog.messages


def test_a_deleted_model_is_not_trained_again_unless_that_is_asked_for(
    make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings(superlink=NOBODY, start_deadline=0.01)
    publish(settings)
    publish(settings, "of other settings")
    registry = Registry(settings.models_dir)
    registry.delete("digits", 1)
    train_once(settings)
    assert registry.versions("digits") == [2]
    assert "CLOISTER_RETRAIN=true trains another; version 2 stays in use" in caplog.text
    # Else it would be trained, and no SuperLink is there.
    with pytest.raises(CloisterError, match="no SuperLink answers"):
        train_once(settings.model_copy(update={"retrain": True}))
    registry.delete_all("digits")
    with pytest.raises(CloisterError, match="and deleted: CLOISTER_RETRAIN=true trains another"):
        train_once(settings)


def test_a_damaged_one_is_told(make_settings: MakeSettings) -> None:
    settings = make_settings(superlink=NOBODY)
    publish(settings)
    (settings.models_dir / "digits" / "1" / "weights").write_text("2")
    with pytest.raises(CloisterError, match="not what was published"):
        train_once(settings)


def test_what_cannot_succeed_is_refused_before_any_work(make_settings: MakeSettings) -> None:
    settings = make_settings(superlink=NOBODY, min_replies=4)
    publish(settings)
    with pytest.raises(CloisterError, match="CLOISTER_MIN_REPLIES=4"):
        train_once(settings)


@pytest.mark.parametrize("retrain", [True, False])
def test_without_a_superlink_it_gives_up_at_the_deadline(
    make_settings: MakeSettings, retrain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "POLL_SECONDS", 0.01)
    settings = make_settings(superlink=NOBODY, retrain=retrain, start_deadline=0.1)
    if retrain:
        publish(settings)
    with pytest.raises(CloisterError, match=f"no SuperLink answers at {NOBODY}.*CLOISTER_SUPERL"):
        train_once(settings)


WAITING: dict[str, Any] = {"expected": 3, "rounds": 5, "quorum": 2, "round_timeout": 600.0}


class Flower:
    """``flwr`` and ``flower-superexec`` as scripts, and a SuperLink that is healthy."""

    def __init__(self, folder: Path, superlink: str, settings: Settings) -> None:
        self.folder = folder
        self.superlink = superlink
        self.settings = settings
        folder.mkdir()
        self._script(
            "flwr",
            f'#!/bin/sh\ncd {folder}\necho "$*" >> calls\n'
            'case "$*" in *--run-id*) while [ ! -e superexec ]; do sleep 0.01; done; cat state ;;\n'
            # The n-th call of a command may have an answer of its own.
            '*) nth="$1$(grep -c "^$1 " calls)"; cat "$nth" 2>/dev/null || cat "$1" ;; esac\n',
        )
        self.answer("run", success=True, **{"run-id": "7"})
        self.answer("ls", success=True, runs=[])
        self.answer("stop", success=True)
        self.state("running")
        self.superexec("")

    def _script(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o755)

    def answer(self, command: str, **answer: Any) -> None:
        (self.folder / command).write_text(json.dumps(answer))

    def state(self, status: str, details: str = "") -> None:
        run = {"run-id": "7", "status": status, "status-details": details}
        self.answer("state", success=True, runs=[run])

    def superexec(self, body: str, then: str = "signal.pause()") -> None:
        """Run this Python code in place of the SuperExec, and then wait for its end."""
        self._script(
            "flower-superexec",
            f"#!{sys.executable}\nimport fcntl, json, os, pathlib, signal, sys, time\n"
            f"folder = pathlib.Path({str(self.folder)!r})\n"
            "def end(*_):\n    (folder / 'terminated').touch()\n    sys.exit(0)\n"
            "signal.signal(signal.SIGTERM, end)\n"
            f"(folder / 'written').write_text(json.dumps([os.getpid(), *sys.argv[1:]]))\n"
            f"(folder / 'written').rename(folder / 'superexec')\n"
            f"{body}\n{then}\n",
        )

    def event(self, event: str, run: int = 7, **fields: Any) -> str:
        """Code that writes an event of a run."""
        path = self.settings.events_dir / f"run-{run}.jsonl"
        line = json.dumps({"event": event} | fields)
        return (
            f"path = pathlib.Path({str(path)!r}); path.parent.mkdir(exist_ok=True)\n"
            # Held until the end of the process, as the ServerApp does.
            "events = path.open('a'); fcntl.flock(events, fcntl.LOCK_EX)\n"
            f"events.write({line!r} + '\\n'); events.flush()\n"
        )

    def killed(self, run: int) -> str:
        """Code of a ServerApp that is killed after its first event."""
        event = self.event("waiting", run=run, **WAITING).replace("\n", "\n    ").rstrip()
        return f"if os.fork() == 0:\n    {event}\n    os.kill(os.getpid(), signal.SIGKILL)\n"

    def submitted_again(self) -> str:
        """Code that waits for another submission, which is of run 8."""
        self.answer("run2", success=True, **{"run-id": "8"})
        return "while (folder / 'calls').read_text().count('run ') < 2: time.sleep(0.01)\n"

    def calls(self, command: str) -> list[str]:
        calls = (self.folder / "calls").read_text().splitlines()
        return [call for call in calls if call.split()[0] == command]

    def superexec_command(self) -> list[str]:
        _, *command = json.loads((self.folder / "superexec").read_text())
        return [str(argument) for argument in command]

    def superexec_is_gone(self) -> bool:
        pid, *_ = json.loads((self.folder / "superexec").read_text())
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False


class Healthy(BaseHTTPRequestHandler):
    """Answers whatever is asked."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def superlink() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Healthy) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def flower(
    tmp_path: Path, superlink: str, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> Flower:
    monkeypatch.setattr(trainer, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(following, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(following, "STATE_SECONDS", 0.02)
    settings = make_settings(superlink=superlink, start_deadline=60)
    settings.superexec_secret.write_text("secret")
    fake = Flower(tmp_path / "bin", superlink, settings)
    monkeypatch.setenv("PATH", f"{fake.folder}{os.pathsep}{os.environ['PATH']}")
    return fake


def test_with_a_ca_superlink_and_superexec_are_verified(flower: Flower, tmp_path: Path) -> None:
    """The health question alone is asked for real: the rest is what Flower is told."""
    provision(ProvisionSettings(federation_dir=tmp_path / "federation"))
    tls, trust = tmp_path / "federation" / "dealer-tls", tmp_path / "federation" / "trust"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls / "tls.crt", tls / "tls.key")
    flower.superexec(flower.event("failed", reason="enough"))
    with HTTPServer(("127.0.0.1", 0), Healthy) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            flower.settings = flower.settings.model_copy(
                update={
                    "superlink": f"127.0.0.1:{server.server_port}",
                    "insecure": False,
                    "ca_path": trust / "ca.crt",
                }
            )
            fails_and_is_stopped(flower, "enough")
            assert flower.superexec_command()[:2] == [
                "--root-certificates",
                str(trust / "ca.crt"),
            ]
            provision(ProvisionSettings(federation_dir=tmp_path / "other"))
            other = {"ca_path": tmp_path / "other/trust/ca.crt", "start_deadline": 0.5}
            with pytest.raises(CloisterError, match="CERTIFICATE_VERIFY_FAILED"):
                train_once(flower.settings.model_copy(update=other))
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("content", [None, "not PEM"])
def test_without_a_ca_it_asks_nobody(
    make_settings: MakeSettings, tmp_path: Path, content: str | None
) -> None:
    with pytest.raises(CloisterError, match=r"set CLOISTER_CA_PATH .*trust/ca\.crt"):
        train_once(make_settings(superlink=NOBODY, insecure=False))
    if content:
        (tmp_path / "ca.crt").write_text(content)
    settings = make_settings(superlink=NOBODY, insecure=False, ca_path=tmp_path / "ca.crt")
    with pytest.raises(CloisterError, match=r"CLOISTER_CA_PATH: .* has no CA certificate"):
        train_once(settings)


def publishing(settings: Settings) -> str:
    """Code that publishes a version of these settings."""
    return (
        "from cloister_shared.registry import Registry\n"
        "def write(folder):\n    (folder / 'weights').write_text('1')\n    return {}\n"
        f"root = pathlib.Path({str(settings.models_dir)!r})\n"
        f"Registry(root).publish('digits', {inputs_digest(settings)!r}, write)\n"
    )


def test_it_ends_well_when_run_and_model_are_there(flower: Flower) -> None:
    completed = 'state = folder / "state"\nstate.write_text(state.read_text().replace("running", '
    completed += '"finished:completed"))\n'
    flower.superexec(publishing(flower.settings) + flower.event("published", version=1) + completed)
    train_once(flower.settings)
    assert Registry(flower.settings.models_dir).versions("digits") == [1]
    assert flower.superexec_is_gone()
    assert (flower.folder / "terminated").exists()
    assert flower.superexec_command() == [
        "--insecure",
        "--runtime-api-address",
        flower.superlink,
        "--superexec-auth-secret-file",
        str(flower.settings.superexec_secret),
        "--parent-pid",
        str(os.getpid()),
    ]
    assert flower.calls("stop") == []


def fails_and_is_stopped(flower: Flower, message: str) -> None:
    with pytest.raises(CloisterError, match=message):
        train_once(flower.settings)
    assert flower.superexec_is_gone()
    assert [call.split()[1] for call in flower.calls("stop")] == ["7"]


def test_what_the_serverapp_says_of_its_failure_is_told(flower: Flower) -> None:
    flower.superexec(flower.event("failed", reason="round 1 has 0 valid replies"))
    fails_and_is_stopped(flower, "the training failed: round 1 has 0 valid replies")


def test_a_serverapp_that_was_killed_is_noticed(flower: Flower) -> None:
    flower.state("finished:failed", "no heartbeat")
    fails_and_is_stopped(flower, "ended as finished:failed: no heartbeat")


def test_a_killed_serverapp_is_noticed_at_once_and_submitted_again(
    flower: Flower, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "STATE_SECONDS", 1e9)
    done = publishing(flower.settings) + flower.event("published", run=8, version=1) + "sys.exit()"
    flower.superexec(flower.killed(7) + flower.submitted_again() + done)
    train_once(flower.settings)
    assert "was killed; submitting the training again" in caplog.text
    assert len(flower.calls("run")) == 2
    assert [call.split()[1] for call in flower.calls("stop")] == ["7"]
    assert Registry(flower.settings.models_dir).versions("digits") == [1]


def test_a_serverapp_that_is_killed_twice_fails_the_training(
    flower: Flower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "STATE_SECONDS", 1e9)
    flower.superexec(flower.killed(7) + flower.submitted_again() + flower.killed(8))
    with pytest.raises(CloisterError, match=r"was killed, 2 times: .*memory"):
        train_once(flower.settings)
    assert [call.split()[1] for call in flower.calls("stop")] == ["7", "8"]
    assert flower.superexec_is_gone()


def test_a_serverapp_that_is_killed_once_it_has_published_has_done_its_work(
    flower: Flower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "STATE_SECONDS", 1e9)
    flower.superexec(publishing(flower.settings) + flower.killed(7))
    train_once(flower.settings)
    assert len(flower.calls("run")) == 1


def test_a_superexec_that_ends_is_noticed(flower: Flower, monkeypatch: pytest.MonkeyPatch) -> None:
    flower.superexec("", then="sys.exit(4)")
    fails_and_is_stopped(flower, "SuperExec ended with code 4")


def test_a_run_that_does_not_begin_is_given_up(flower: Flower) -> None:
    flower.settings = flower.settings.model_copy(update={"start_deadline": 0.2})
    fails_and_is_stopped(flower, r"did not start within 0 s.*CLOISTER_START_DEADLINE")


def test_one_that_waits_for_sites_has_begun(
    flower: Flower, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    flower.settings = flower.settings.model_copy(update={"start_deadline": 2})
    measured: dict[str, Any] = {"round": 1, "rounds": 5, "sites": 3, "failures": 0, "examples": 9}
    measured |= {"accuracy": 0.5, "loss": 1.5, "seconds": 2.0, "epsilon": None, "seconds_left": 8}
    flower.superexec(
        flower.event("waiting", **WAITING)
        + flower.event("log", level=20, message="2 of 3 sites are online")
        + "time.sleep(2.5)\n"
        + flower.event("round", **measured)
        + flower.event("failed", reason="too few")
    )
    fails_and_is_stopped(flower, "too few")
    assert "2 of 3 sites are online" in caplog.text
    assert (
        "round 1 of 5: 3 sites, loss 1.5000, accuracy 0.5000, 2.0 s, about 8 s left" in caplog.text
    )


def test_a_run_that_completes_without_a_model_is_a_failure(flower: Flower) -> None:
    flower.state("finished:completed")
    with pytest.raises(CloisterError, match="no model was published"):
        train_once(flower.settings)


def test_an_older_model_is_none_of_this_run(flower: Flower) -> None:
    publish(flower.settings)
    flower.state("finished:completed")
    with pytest.raises(CloisterError, match="no model was published"):
        train_once(flower.settings.model_copy(update={"retrain": True}))


def test_a_superlink_that_is_away_for_a_while_ends_nothing(
    flower: Flower, caplog: pytest.LogCaptureFixture
) -> None:
    flower.answer("state", **{"success": False, "error-message": "connection refused"})
    # Away until the SuperExec has seen it asked twice.
    back = json.dumps({"success": True, "runs": [{"run-id": "7", "status": "finished:completed"}]})
    flower.superexec(
        publishing(flower.settings)
        + "while (folder / 'calls').read_text().count('--run-id') < 2: time.sleep(0.01)\n"
        + f"(folder / 'back').write_text({back!r})\n"
        + "(folder / 'back').replace(folder / 'state')\n"
    )
    train_once(flower.settings)
    assert "connection refused; asking again" in caplog.text


def test_a_superlink_that_stays_away_ends_it(
    flower: Flower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "UNANSWERED_SECONDS", 0.1)
    flower.answer("state", **{"success": False, "error-message": "connection refused"})
    fails_and_is_stopped(flower, "connection refused")


@pytest.mark.parametrize("resume", [True, False])
def test_an_unfinished_training_is_kept_unless_it_is_not_wanted(
    flower: Flower, resume: bool
) -> None:
    flower.settings = flower.settings.model_copy(update={"resume": resume})
    kept = flower.settings.checkpoints_dir / "digits.npz"
    kept.parent.mkdir()
    kept.write_bytes(b"kept")
    flower.superexec(flower.event("failed", reason="too few"))
    fails_and_is_stopped(flower, "too few")
    assert kept.exists() == resume


def test_its_log_lines_can_be_json(
    flower: Flower, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    replies: dict[str, Any] = {"round": 2, "replied": 7, "asked": 10, "seconds": 4.0}
    flower.superexec(flower.event("replies", **replies) + flower.event("failed", reason="too few"))
    handlers, level = logging.root.handlers[:], logging.root.level
    try:
        configure_logging("trainer", "json")
        with pytest.raises(CloisterError, match="too few"):
            train_once(flower.settings)
    finally:
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {line["service"] for line in lines} == {"trainer"}
    (line,) = [line for line in lines if "training" in line]
    assert line["message"] == "round 2: 7 of 10 sites have replied, 4 s"
    assert line["training"] == {"event": "replies"} | replies
    assert {"time", "level", "logger"} < set(line)
    told = [one for one in lines if one["message"].startswith(("submitted run", "round"))]
    assert len({one["run_id"] for one in told}) == 1
    assert len(told) == 2


def test_metrics_are_served_while_it_trains(flower: Flower) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flower.settings = flower.settings.model_copy(update={"metrics_port": port})
    started = flower.event("started", sites=3, expected=3, rounds=4)
    # Until somebody has seen it.
    flower.superexec(
        started
        + "import urllib.request\n"
        + "seen = lambda: urllib.request.urlopen("
        + f"'http://127.0.0.1:{port}/metrics').read().decode()\n"
        + "while 'cloister_training_rounds 4.0' not in seen(): time.sleep(0.01)\n"
        + flower.event("failed", reason="it was seen")
    )
    fails_and_is_stopped(flower, "it was seen")
    with pytest.raises(OSError, match="refused"), socket.create_connection(("127.0.0.1", port)):
        pass


def test_without_the_secret_nothing_is_submitted(flower: Flower) -> None:
    flower.settings.superexec_secret.unlink()
    with pytest.raises(CloisterError, match=r"superexec\.secret is missing: provision makes it"):
        train_once(flower.settings)
    assert flower.calls("run") == []
