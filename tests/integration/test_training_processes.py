"""Trainings as real processes on loopback, of which one is killed in the middle of a round."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from flwr.proto.fleet_pb2 import PullMessagesResponse

from cloister_cli.processes import free_ports
from cloister_dealer.deal import deal
from cloister_dealer.settings import Settings as DealerSettings
from cloister_shared.artifact import CARD
from cloister_shared.card import ModelCard, read_card
from cloister_shared.registry import Registry

SITES = 3
ROUNDS = 6
PATIENCE_SECONDS = 240.0

Process = subprocess.Popen[bytes]


def until(happened: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until something has happened."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:.0f} s"
        time.sleep(0.1)


class Way:
    """The way from sites to their SuperLink, on which what a site is given can be lost.

    Attributes:
        port: where sites reach the SuperLink.
        lost: ids of the messages that were.
    """

    def __init__(self, superlink: int) -> None:
        self.lost: list[str] = []
        self._lock = threading.Lock()
        self._loses = 0
        way = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
                try:
                    answer = httpx.post(
                        f"http://127.0.0.1:{superlink}{self.path}",
                        content=body,
                        headers=headers,
                        timeout=60,
                    )
                except httpx.HTTPError:
                    return
                if self.path.endswith("/pull-messages") and way._is_lost(answer.content):
                    return
                self.send_response(answer.status_code)
                for name in ("Content-Type", "Content-Length"):
                    self.send_header(name, answer.headers[name])
                self.end_headers()
                self.wfile.write(answer.content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def lose(self, messages: int) -> None:
        """Lose the next messages to sites, once the SuperLink has given them."""
        with self._lock:
            self._loses = messages

    def _is_lost(self, answer: bytes) -> bool:
        given = [
            one.metadata.message_id for one in PullMessagesResponse.FromString(answer).messages_list
        ]
        with self._lock:
            if not given or len(self.lost) >= self._loses:
                return False
            self.lost += given
            return True

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()


class Federation:
    """A SuperLink and its sites; every process that was started ends with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (self.port,) = free_ports(1)
        self.way = Way(self.port)
        self._started: list[Process] = []
        self.server = self.start_server()

    def start(self, name: str, module: str, **settings: object) -> Process:
        """Start a service in a process group of its own; its log is ``name``.log."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("CLOISTER_")}
        path = os.pathsep.join([sysconfig.get_path("scripts"), inherited.get("PATH", os.defpath)])
        home = self.folder / f"{name}-home"
        environment = inherited | {"PATH": path, "FLWR_HOME": str(home), "OMP_NUM_THREADS": "1"}
        # What is secure has tests of its own.
        settings = {"insecure": True} | settings
        environment |= {f"CLOISTER_{key.upper()}": str(value) for key, value in settings.items()}
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def start_server(self) -> Process:
        """Start the SuperLink, and return once it answers."""
        process = self.start(
            "server",
            "cloister_server",
            port=self.port,
            state_dir=self.folder / "state",
            superexec_secret=self.folder / "superexec.secret",
        )

        def healthy() -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{self.port}/health").is_success
            except httpx.HTTPError:
                return False

        until(healthy, "the SuperLink's start")
        return process

    def start_sites(self) -> None:
        """Deal digits, and start a client for each shard."""
        settings = DealerSettings(
            shards=SITES,
            shards_dir=self.folder / "shards",
            held_out_dir=self.folder / "held-out",
        )
        dealt = deal(settings)
        for number in range(1, SITES + 1):
            site = self.folder / f"site-{number}"
            site.mkdir()
            dealt.shard_path(settings.shards_dir, number - 1).rename(site / "shard.npz")
            (site / "schema.json").write_text(dealt.data.model_dump_json())
            self.start(
                f"client-{number}",
                "cloister_client",
                superlink=f"127.0.0.1:{self.way.port}",
                shard_dir=site,
                data_dir=self.folder / f"client-{number}",
            )

    def log(self, name: str) -> str:
        """Return what a service has written so far."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def close(self) -> None:
        """Kill all that is left."""
        for process in self._started:
            kill_group(process)
        self.way.close()


def kill_group(process: Process) -> None:
    """Kill a service with all it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    made = Federation(tmp_path_factory.mktemp("federation"))
    try:
        made.start_sites()
        yield made
    finally:
        made.close()


class Trainer:
    """Trainers of one model, one after the other."""

    def __init__(self, federation: Federation, name: str, **settings: object) -> None:
        self.federation = federation
        self.name = name
        self.settings = settings
        self.folder = federation.folder / name

    def start(self) -> Process:
        return self.federation.start(
            self.name,
            "cloister_trainer",
            superlink=f"127.0.0.1:{self.federation.port}",
            superexec_secret=self.federation.folder / "superexec.secret",
            models_dir=self.folder / "models",
            events_dir=self.folder / "events",
            checkpoints_dir=self.folder / "checkpoints",
            work_dir=self.folder / "work",
            model=self.name,
            clients=SITES,
            rounds=ROUNDS,
            settle_seconds=0,
            min_replies=SITES - 1,
            round_timeout=60,
            **self.settings,
        )

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return events of all runs so far."""
        found = []
        for path in sorted((self.folder / "events").glob("*.jsonl"), key=os.path.getctime):
            found += [json.loads(line) for line in path.read_text().split("\n")[:-1]]
        return [event for event in found if event["event"] == name]

    def await_round(self, number: int) -> None:
        """Return in the middle of the round after this one."""
        until(lambda: len(self.events("round")) >= number, f"round {number} of {self.name}")

    def processes(self, program: str) -> list[int]:
        """Return the ids of running processes of this trainer's by the name of the program."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if str(self.folder) in (entry / "environ").read_bytes().decode(
                    errors="replace"
                ) and program in (entry / "cmdline").read_bytes().decode(errors="replace"):
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def done(self, process: Process) -> ModelCard:
        """Wait for a trainer's good end, and return the card of what it published."""
        until(lambda: process.poll() is not None, f"the end of {self.name}")
        assert process.returncode == 0, self.federation.log(self.name)[-4000:]
        version = Registry(self.folder / "models").open_current(self.name)
        version.verify()
        return read_card(version.file(CARD))


def check(card: ModelCard) -> None:
    assert [measured.round for measured in card.rounds] == list(range(1, ROUNDS + 1))
    assert card.final is not None
    assert (card.final.accuracy or 0) > 0.9


def test_a_trainer_that_is_killed_goes_on_from_the_last_round(federation: Federation) -> None:
    trainer = Trainer(federation, "killed-trainer", standardise=True)
    process = trainer.start()
    trainer.await_round(2)
    assert trainer.processes("flwr-serverapp")
    process.send_signal(signal.SIGKILL)
    process.wait()
    until(
        lambda: not trainer.processes("flwr-serverapp") + trainer.processes("flower-superexec"),
        "the end of what the trainer had started",
        seconds=60,
    )
    done = len(trainer.events("round"))
    card = trainer.done(trainer.start())
    check(card)
    assert len(trainer.events("round")) == ROUNDS, "no round was trained twice"
    assert [event["after"] for event in trainer.events("resumed")] == [done]
    log = federation.log("killed-trainer")
    assert f"going on after round {done} of {ROUNDS}" in log
    assert list((trainer.folder / "checkpoints").iterdir()) == []
    assert card.standardised
    assert log.count("inputs are standardised by 1293 rows") == 1, "they are summed once"


def test_a_serverapp_that_is_killed_is_started_again(federation: Federation) -> None:
    trainer = Trainer(federation, "killed-serverapp")
    process = trainer.start()
    trainer.await_round(1)
    (serverapp,) = trainer.processes("flwr-serverapp")
    os.kill(serverapp, signal.SIGKILL)
    check(trainer.done(process))
    assert "was killed; submitting the training again" in federation.log("killed-serverapp")
    assert len(trainer.events("round")) == ROUNDS


def test_a_superlink_that_is_killed_with_messages_on_their_way_loses_no_update(
    federation: Federation,
) -> None:
    trainer = Trainer(federation, "killed-superlink")
    process = trainer.start()
    trainer.await_round(1)
    federation.way.lose(SITES - 1)
    until(lambda: len(federation.way.lost) == SITES - 1, "the loss of messages")
    kill_group(federation.server)
    time.sleep(3)
    federation.server = federation.start_server()
    card = trainer.done(process)
    check(card)
    assert [measured.sites for measured in card.rounds] == [SITES] * ROUNDS
    assert len(trainer.events("started")) == 1, "it was one and the same run"
