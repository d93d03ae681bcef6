"""Real SuperLink, sites and trainer: a run with code of its own is refused by every site."""

import json
import os
import re
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloister_cli.processes import Processes, Service, free_ports
from cloister_shared.datasets import schema
from cloister_shared.flower import flower_environment

SITES = 2
WAIT = 240.0

HOSTILE = """
[project]
name = "cloister"
version = "1.0.0"

[tool.flwr.app]
publisher = "cloister"

[tool.flwr.app.components]
serverapp = "hostile.server:app"
clientapp = "hostile.client:app"

[tool.flwr.app.config]
"""

CLIENT = """
from pathlib import Path
from flwr.clientapp import ClientApp
Path({marker!r}).touch()
app = ClientApp()

@app.train()
def train(message, context):
    Path({marker!r}).touch()
    return message
"""

SERVER = """
import json, time
from pathlib import Path
from flwr.app import Message, RecordDict
from flwr.serverapp import ServerApp
app = ServerApp()

@app.main()
def main(grid, context):
    while len(nodes := list(grid.get_node_ids())) < {sites}:
        time.sleep(0.5)
    found, rounds = [], 0
    while rounds < 2:
        asked = [Message(RecordDict(), node, "train") for node in nodes]
        try:
            replies = list(grid.send_and_receive(asked, timeout=60))
        except Exception:
            # A site may have refused a message before all of it was stored, which then fails.
            continue
        found += [[one.has_error(), one.has_error() and one.error.reason] for one in replies]
        rounds += 1
    Path({replies!r} + ".new").write_text(json.dumps(found))
    Path({replies!r} + ".new").rename({replies!r})
"""


@dataclass
class Federation:
    folder: Path
    superlink: str
    processes: Processes
    environment: dict[str, str]
    sites: list[Service]


@pytest.fixture
def federation(tmp_path: Path, digits_data: tuple[Any, Any]) -> Iterator[Federation]:
    (port,) = free_ports(1)
    secret = tmp_path / "superexec.secret"
    environment = flower_environment() | {
        "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]]),
        "FLWR_HOME": str(tmp_path / "flwr"),
        "CLOISTER_INSECURE": "true",
    }
    with Processes(tmp_path, environment) as processes:
        server = processes.start(
            "server",
            "cloister_server",
            port=port,
            state_dir=tmp_path / "state",
            superexec_secret=secret,
        )
        server.wait_healthy(f"http://127.0.0.1:{port}/health", WAIT)
        sites = []
        for number in range(SITES):
            site = tmp_path / f"site-{number}"
            site.mkdir()
            features, labels = (part[number::SITES] for part in digits_data)
            np.savez(site / "shard.npz", X=features, y=labels)
            (site / "schema.json").write_text(schema("digits").model_dump_json())
            sites.append(
                processes.start(
                    f"client-{number}",
                    "cloister_client",
                    superlink=f"127.0.0.1:{port}",
                    shard_dir=site,
                    data_dir=tmp_path / f"data-{number}",
                )
            )
        yield Federation(tmp_path, f"127.0.0.1:{port}", processes, environment, sites)


def train(federation: Federation, name: str) -> None:
    federation.processes.start(
        name,
        "cloister_trainer",
        superlink=federation.superlink,
        superexec_secret=federation.folder / "superexec.secret",
        models_dir=federation.folder / name / "models",
        events_dir=federation.folder / name / "events",
        work_dir=federation.folder / name / "work",
        clients=SITES,
        rounds=2,
        settle_seconds=0,
    ).wait_done(federation.sites)


def submit_hostile(federation: Federation, marker: Path, replies: Path) -> None:
    """Submit a run through the Control API, as someone would who reaches it."""
    app = federation.folder / "hostile-app"
    (app / "hostile").mkdir(parents=True)
    (app / "pyproject.toml").write_text(HOSTILE)
    (app / "hostile" / "__init__.py").touch()
    (app / "hostile" / "client.py").write_text(CLIENT.format(marker=str(marker)))
    (app / "hostile" / "server.py").write_text(SERVER.format(sites=SITES, replies=str(replies)))
    home = Path(federation.environment["FLWR_HOME"])
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "a"\n[superlink.a]\naddress = "{federation.superlink}"\n'
        "insecure = true\n"
    )
    answer = subprocess.run(
        ["flwr", "run", str(app), "a", "--format", "json"],
        env=federation.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(answer.stdout)["success"], answer.stdout


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.2)


def test_the_own_code_trains_and_no_other_code_is_ever_run(federation: Federation) -> None:
    train(federation, "first")
    assert list((federation.folder / "first" / "models").rglob("weights*"))

    marker, replies = federation.folder / "marker", federation.folder / "replies.json"
    submit_hostile(federation, marker, replies)
    # Executes the hostile ServerApp, which is the server's own affair.
    superexec = [
        *("flower-superexec", "--insecure", "--runtime-api-address", federation.superlink),
        *("--superexec-auth-secret-file", str(federation.folder / "superexec.secret")),
    ]
    with subprocess.Popen(superexec, env=federation.environment) as process:
        try:
            wait_until(replies.exists)
        finally:
            process.terminate()
    found = json.loads(replies.read_text())
    assert len(found) == 2 * SITES
    for is_error, reason in found:
        assert is_error
        assert "runs the code of its own image only" in reason
    assert not marker.exists()
    for site in federation.sites:
        site.check()
        assert site.log.read_text().count("a message is refused") >= 2
        assert "starting it again" not in site.log.read_text()

    # A refused run leaves the sites as they were.
    train(federation, "second")


def test_a_client_that_is_asked_to_end_says_goodbye(federation: Federation) -> None:
    def nodes(what: str) -> set[str]:
        log = (federation.folder / "server.log").read_text()
        return set(re.findall(rf"{what} node_id=(\d+)", log))

    wait_until(lambda: len(nodes("Activated")) == SITES)
    for site in federation.sites:
        site.terminate()
        site.close()
    assert nodes("Deactivated") == nodes("Activated")
