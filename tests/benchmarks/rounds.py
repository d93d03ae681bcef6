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
import time
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


@dataclass(frozen=True)
class Process:
    """One process as /proc shows it."""

    pid: int
    parent: int
    command: str
    own_seconds: float
    """Of CPU."""
    children_seconds: float
    """Of CPU, of its children that have ended."""
    pss: int
    """Bytes of memory, with what is shared counted in parts."""


@dataclass(frozen=True)
class Sample:
    """All processes at one moment, by kind."""

    time: float
    """Since the epoch."""
    cpu_seconds: dict[str, float]
    """Since the beginning, also of processes that have ended."""
    pss: dict[str, int]
    processes: dict[str, int]


class Watch:
    """Samples the processes below this one until its context ends."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._cpu: dict[tuple[str, int], float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_details: object) -> None:
        self._stop.set()
        self._thread.join()

    def spent(self, begin: float, end: float) -> dict[str, float]:
        """Return the CPU seconds of every kind between two moments, to the nearest sample."""
        before, after = (
            min(self.samples, key=lambda sample: abs(sample.time - moment)).cpu_seconds
            for moment in (begin, end)
        )
        return {kind: seconds - before.get(kind, 0.0) for kind, seconds in after.items()}

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            pss: dict[str, int] = defaultdict(int)
            count: dict[str, int] = defaultdict(int)
            for kind, process in kinds(os.getpid()):
                pss[kind] += process.pss
                count[kind] += 1
                # What a child that works on a message spends is found with its parent afterwards.
                if kind != FIT:
                    self._cpu[kind, process.pid] = process.own_seconds
                if kind == WARM:
                    self._cpu[FIT, process.pid] = process.children_seconds
            cpu: dict[str, float] = defaultdict(float)
            for (kind, _), seconds in self._cpu.items():
                cpu[kind] += seconds
            self.samples.append(Sample(time.time(), dict(cpu), dict(pss), dict(count)))


def processes() -> Iterator[Process]:
    """Yield every process whose memory this user may see."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            # The name, in brackets, may have blanks.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            rollup = (entry / "smaps_rollup").read_text()
            command = (entry / "cmdline").read_bytes().decode().replace("\0", " ")
            pss = int(rollup.split("\nPss:")[1].split()[0]) * 1024
            own, children = (sum(map(int, fields[at : at + 2])) / TICKS for at in (11, 13))
            yield Process(int(entry.name), int(fields[1]), command, own, children, pss)


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


NODE = "client: node"
WARM = "client: warm process"
FIT = "client: fit"
NAMES = {
    "cloister_dealer": "dealer",
    "cloister_server": "SuperLink",
    "cloister_enrolment": "enrolment",
    "cloister_client.node": NODE,
    "cloister_client": "client: keeper",
    "flower-superexec": "trainer: Flower's",
    "flwr-serverapp": "trainer: Flower's",
    "cloister_trainer": "trainer",
}


def kind_of(process: Process, parent: str) -> str:
    """Return the kind of a process from its command line and its parent's kind."""
    if parent in {NODE, WARM}:
        return WARM if parent == NODE else FIT
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
    times = round_times(folder)
    # Of the rounds after the first.
    a_round = watch.spent(times[min(1, len(times) - 1)][0], times[-1][1])
    n_rounds = max(1, len(times) - 1)
    costs = Table(title=f"{clients} clients: cost", width=WIDTH)
    for column in (
        "processes",
        "at once",
        "CPU s in all",
        "CPU s a round",
        "peak PSS MB",
        "each MB",
    ):
        costs.add_column(column, justify="left" if column == "processes" else "right")
    kinds_seen = sorted({kind for sample in watch.samples for kind in sample.pss})
    found_costs = {}
    for kind in [*kinds_seen, "all"]:
        members = kinds_seen if kind == "all" else [kind]
        at_once = [sum(s.processes.get(m, 0) for m in members) for s in watch.samples]
        memory = [sum(s.pss.get(m, 0) for m in members) / MEGABYTE for s in watch.samples]
        cost = {
            "at_once": max(at_once),
            "cpu_seconds": sum(watch.samples[-1].cpu_seconds.get(m, 0.0) for m in members),
            "cpu_seconds_a_round": sum(a_round.get(m, 0.0) for m in members) / n_rounds,
            "peak_pss_mb": max(memory),
            "peak_pss_mb_each": max(memory) / max(at_once),
        }
        found_costs[kind] = cost
        costs.add_row(
            kind, str(cost["at_once"]), *(f"{value:.1f}" for value in list(cost.values())[1:])
        )
    console.print(costs)
    return {"clients": clients, "rounds": rounds, "costs": found_costs}


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
