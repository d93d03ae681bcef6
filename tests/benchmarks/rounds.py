"""Measures a round of federated training: how long it takes, where the time goes, what it costs.

Real processes on this machine, over TLS: dealer, SuperLink, enrolment, clients, trainer. Where the
time goes comes from what they write themselves: the trainer's events, and the line that a client
logs for each message. What it costs is read from /proc, so that it runs on Linux alone.
"""

import argparse
import json
import os
import re
import statistics
import sysconfig
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.table import Table

from cloister_cli.processes import Processes, Service, free_ports

WIDTH = 110
HEALTHY_SECONDS = 300
SAMPLE_SECONDS = 2.0
TICKS = os.sysconf("SC_CLK_TCK")
MEGABYTE = 1 << 20
ANSWERED = re.compile(
    r"(\S+)Z INFO +client: run (\d+): (\w+) message answered(?: with an error)?: "
    r"received in ([\d.]+) s, worked ([\d.]+) s, sent in ([\d.]+) s"
)
GOALS = "Goal: at most 8 s a round after the first, with 10 clients on 2 cores that are else idle."


@dataclass(frozen=True)
class Answer:
    """How one client dealt with one message; times in seconds since the epoch."""

    kind: str
    began: float
    received: float
    worked: float
    sent: float


@dataclass
class Cost:
    """What the processes of one kind cost together."""

    cpu_seconds: float = 0.0
    peak_pss: int = 0
    """Bytes: memory, with what is shared counted in parts."""
    processes: int = 0
    """Most at one time."""


@dataclass(frozen=True)
class Process:
    """One process as /proc shows it."""

    pid: int
    parent: int
    command: str
    cpu_seconds: float
    """Its own and that of the children that have ended."""
    pss: int


class Watch:
    """Samples the processes below this one, by kind, until its context ends."""

    def __init__(self) -> None:
        self.costs: dict[str, Cost] = defaultdict(Cost)
        self._cpu: dict[tuple[str, int], float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_details: object) -> None:
        self._stop.set()
        self._thread.join()
        for (kind, _), seconds in self._cpu.items():
            self.costs[kind].cpu_seconds += seconds

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            by_kind: dict[str, list[Process]] = defaultdict(list)
            for kind, process in kinds(os.getpid()):
                by_kind[kind].append(process)
                # A child's is counted with its parent once it has ended.
                if not kind.startswith("fit"):
                    self._cpu[kind, process.pid] = process.cpu_seconds
            for kind, found in by_kind.items():
                cost = self.costs[kind]
                cost.peak_pss = max(cost.peak_pss, sum(process.pss for process in found))
                cost.processes = max(cost.processes, len(found))


def processes() -> Iterator[Process]:
    """Yield every process whose memory this user may see."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            # The name, in brackets, may have blanks.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            rollup = (entry / "smaps_rollup").read_text()
            command = (entry / "cmdline").read_bytes().decode().replace("\0", " ")
            pss = int(rollup.split("\nPss:")[1].split()[0]) * 1024
            spent = sum(map(int, fields[11:15])) / TICKS
            yield Process(int(entry.name), int(fields[1]), command, spent, pss)


def kinds(root: int) -> Iterator[tuple[str, Process]]:
    """Yield every descendant of a process with its kind."""
    children: dict[int, list[Process]] = defaultdict(list)
    for process in processes():
        children[process.parent].append(process)

    def below(pid: int, kind: str) -> Iterator[tuple[str, Process]]:
        for process in children[pid]:
            own = kind_of(process, kind)
            yield own, process
            yield from below(process.pid, own)

    yield from below(root, "")


NAMES = {
    "cloister_dealer": "dealer",
    "cloister_server": "SuperLink",
    "cloister_enrolment": "enrolment",
    "cloister_client.node": "client: node",
    "cloister_client": "client",
    "flower-superexec": "trainer: Flower's",
    "flwr-serverapp": "trainer: Flower's",
    "cloister_trainer": "trainer",
}


def kind_of(process: Process, parent: str) -> str:
    """Return the kind of a process from its command line and its parent's kind."""
    if parent.startswith("client: node"):
        return "client: warm process"
    if parent == "client: warm process":
        return "fit (while it runs)"
    for name, kind in NAMES.items():
        if re.search(rf"{re.escape(name)}(\s|$)", process.command):
            return kind
    return parent or "other"


def train(clients: int, rounds: int, dataset: str, folder: Path) -> Watch:
    """Run a training from beginning to end; its logs and events are left in ``folder``."""
    superlink, dealer, enrolment = free_ports(3)
    federation = folder / "federation"
    secret, ca_path = federation / "control" / "superexec.secret", federation / "trust" / "ca.crt"
    deal: dict[str, Any] = {"dataset": dataset, "shards": clients, "clients": clients}
    if path := os.environ.get("MNIST_PATH"):
        deal["mnist_path"] = path
    kept = {key: value for key, value in os.environ.items() if not key.startswith("CLOISTER_")}
    environment = kept | {
        "PATH": os.pathsep.join([sysconfig.get_path("scripts"), kept.get("PATH", os.defpath)]),
        "FLWR_HOME": str(folder / "flwr"),
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }
    with Watch() as watch, Processes(folder, environment) as started:
        started.start("provision", "cloister_provision", federation_dir=federation).wait_done([])
        dealing = started.start(
            "dealer",
            "cloister_dealer",
            port=dealer,
            **certificate(federation / "dealer-tls"),
            shards_dir=folder / "shards",
            held_out_dir=folder / "held-out",
            **deal,
        )
        server = started.start(
            "server",
            "cloister_server",
            port=superlink,
            **certificate(federation / "server-tls"),
            tls_ca=federation / "server-tls" / "ca.crt",
            state_dir=folder / "state",
            superexec_secret=secret,
        )
        enrolling = started.start(
            "enrolment",
            "cloister_enrolment",
            port=enrolment,
            **certificate(federation / "enrolment-tls"),
            superlink=f"127.0.0.1:{superlink}",
            ca_path=ca_path,
            enrolment_dir=federation / "enrolment",
        )
        needed: list[Service] = [dealing, server, enrolling]
        for service, port, path in (
            (dealing, dealer, "health"),
            (server, superlink, "health"),
            (enrolling, enrolment, "enrolment/health"),
        ):
            service.wait_healthy(f"https://127.0.0.1:{port}/{path}", HEALTHY_SECONDS, ca_path)
        needed += [
            started.start(
                f"client-{number}",
                "cloister_client",
                superlink=f"127.0.0.1:{superlink}",
                ca_path=ca_path,
                enrolment_url=f"https://127.0.0.1:{enrolment}",
                join_token_path=federation / "join" / "join.token",
                site_name=f"client-{number}",
                dealer_url=f"https://127.0.0.1:{dealer}",
                data_dir=folder / f"client-{number}",
            )
            for number in range(1, clients + 1)
        ]
        started.start(
            "trainer",
            "cloister_trainer",
            superlink=f"127.0.0.1:{superlink}",
            ca_path=ca_path,
            superexec_secret=secret,
            models_dir=folder / "models",
            events_dir=folder / "events",
            work_dir=folder / "trainer",
            dataset=dataset,
            clients=clients,
            shards=clients,
            rounds=rounds,
            start_deadline=HEALTHY_SECONDS + 10 * clients,
            settle_seconds=0,
        ).wait_done(needed)
    return watch


def certificate(folder: Path) -> dict[str, Path]:
    """Return the settings for a service's certificate."""
    return {"tls_certificate": folder / "tls.crt", "tls_key": folder / "tls.key"}


def answers(folder: Path) -> list[Answer]:
    """Return what the clients logged of every message."""
    found = []
    for log in folder.glob("client-*.log"):
        for line in log.read_text().splitlines():
            if matched := ANSWERED.match(line):
                sent = datetime.fromisoformat(matched[1]).replace(tzinfo=UTC).timestamp()
                received, worked, sending = map(float, matched.groups()[3:])
                at = sent - sending
                found.append(Answer(matched[3], at - worked - received, at - worked, at, sent))
    return found


def round_times(folder: Path) -> list[tuple[float, float]]:
    """Return begin and end of every round, as the trainer saw them, since the epoch."""
    (log,) = (folder / "events").glob("*.jsonl")
    times = []
    for line in log.read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "round":
            end = datetime.fromisoformat(event["time"]).timestamp()
            times.append((end - event["seconds"], end))
    return times


PARTS = {
    "wait": "from the round's begin until the median client asks and gets a message",
    "receive": "a client's median to fetch it",
    "work": "median in the child: read the shard, measure, fit",
    "send": "median to send the reply",
    "last": "from the median reply until the last one",
    "collect": "from the last reply until the round has ended: found, fetched, averaged",
}


def parts(begin: float, end: float, found: list[Answer]) -> dict[str, float]:
    """Return where the time of one round went, in seconds."""
    median = {
        name: statistics.median(getattr(answer, name) for answer in found)
        for name in ("began", "received", "worked", "sent")
    }
    last = max(answer.sent for answer in found)
    return {
        "wait": median["began"] - begin,
        "receive": median["received"] - median["began"],
        "work": median["worked"] - median["received"],
        "send": median["sent"] - median["worked"],
        "last": last - median["sent"],
        "collect": end - last,
    }


def report(console: Console, clients: int, folder: Path, watch: Watch) -> dict[str, Any]:
    """Print the tables of one training and return what is in them."""
    found = answers(folder)
    table = Table(title=f"{clients} clients: seconds of each round", width=WIDTH)
    for column in ("round", "total", *PARTS):
        table.add_column(column, justify="right")
    rounds = []
    for number, (begin, end) in enumerate(round_times(folder), start=1):
        inside = [answer for answer in found if begin <= answer.sent <= end + 1]
        went = {"total": end - begin, **parts(begin, end, inside)}
        rounds.append(went)
        table.add_row(str(number), *(f"{seconds:.2f}" for seconds in went.values()))
    console.print(table)
    for name, meaning in PARTS.items():
        console.print(f"  {name}: {meaning}")
    costs = Table(title=f"{clients} clients: cost of the whole training", width=WIDTH)
    for column in ("processes", "most at once", "CPU s", "peak PSS, MB", "a client, MB"):
        costs.add_column(column, justify="left" if column == "processes" else "right")
    for kind, cost in sorted(watch.costs.items()):
        own = kind.startswith(("client", "fit"))
        costs.add_row(
            kind,
            str(cost.processes),
            f"{cost.cpu_seconds:.1f}" if cost.cpu_seconds else "",
            f"{cost.peak_pss / MEGABYTE:.0f}",
            f"{cost.peak_pss / clients / MEGABYTE:.0f}" if own else "",
        )
    console.print(costs)
    return {
        "clients": clients,
        "rounds": rounds,
        "costs": {kind: vars(cost) for kind, cost in watch.costs.items()},
    }


def main() -> None:
    """Measure with every number of clients asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[10])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--dataset", default="mnist", help="mnist is read from MNIST_PATH")
    parser.add_argument("--output", type=Path, default=Path("build/bench/rounds.json"))
    arguments = parser.parse_args()
    console = Console(width=WIDTH)
    measured = []
    for clients in arguments.clients:
        with tempfile.TemporaryDirectory(prefix="cloister-rounds-") as folder:
            watch = train(clients, arguments.rounds, arguments.dataset, Path(folder))
            measured.append(report(console, clients, Path(folder), watch))
    console.print(GOALS)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(measured, indent=2) + "\n")
    console.print(f"written: {arguments.output}")


if __name__ == "__main__":
    main()
