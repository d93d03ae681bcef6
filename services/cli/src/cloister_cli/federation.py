"""A training across sites that are processes on this machine."""

import os
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cloister_cli.commands import PREFIX
from cloister_cli.home import Home
from cloister_cli.processes import Processes, Service, free_ports

HEALTHY_SECONDS = 120.0
DOWNLOAD_SECONDS = 1800.0
"""A dealer that has to download its dataset first is healthy only then."""

_OF_DEPLOYMENTS = {
    f"{PREFIX}{name}"
    for name in (
        *("HOST", "INSECURE", "SHARD_DIR", "DEAL_PATH", "DEAL_KEY_PATH", "FEDERATION_NAMES"),
        *("TLS_CERTIFICATE_FILE", "TLS_KEY_FILE", "TLS_CA_FILE"),
    )
}
"""Settings that say where a service is, and make no sense for processes that find each other."""


@dataclass(frozen=True)
class Training:
    """What is trained, over whose rows."""

    model: str
    """Name under which it is published."""
    clients: int = 3
    """Sites that rows of a dataset are dealt to."""
    data: tuple[Path, ...] = ()
    """Folders with rows and their schema, one a site; nothing is dealt then."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """Of the trainer, and where rows are dealt of the dealer; what is None is left to them."""
    mnist_path: Path | None = None

    @property
    def sites(self) -> int:
        """How many there are."""
        return len(self.data) or self.clients


def train(training: Training, home: Home, processes: Processes, scratch: Path) -> None:
    """Train, with everything that this takes, and stop it all again.

    Args:
        training: what is trained.
        home: gets the model, and the samples that are held out where rows are dealt.
        processes: in which the services are started.
        scratch: an empty folder for all that is not needed afterwards.

    Raises:
        ServiceFailedError: a service ended badly.
    """
    superlink, dealer, enrolment = free_ports(3)
    federation = scratch / "federation"
    secret, ca_path = federation / "control" / "superexec.secret", federation / "trust" / "ca.crt"
    deal = None if training.data else scratch / "deal"
    starting: list[tuple[Service, str, float]] = []

    say("making certificates and secrets")
    processes.start("provision", "cloister_provision", federation_dir=federation).wait_done([])

    say("starting the SuperLink" + ("" if training.data else " and dealing rows"))
    if not training.data:
        dealing = processes.start(
            "dealer",
            "cloister_dealer",
            port=dealer,
            **_certificate(federation / "dealer-tls"),
            shards_dir=scratch / "shards",
            held_out_dir=home.held_out(training.model),
            deal_path=deal,
            deal_key_path=home.deal_key,
            mnist_path=training.mnist_path and training.mnist_path.resolve(),
            # As many shards as sites: every row is at some site.
            **{**training.settings, "clients": training.sites, "shards": training.sites},
        )
        starting.append((dealing, f"https://127.0.0.1:{dealer}/health", DOWNLOAD_SECONDS))
    server = processes.start(
        "server",
        "cloister_server",
        port=superlink,
        **_certificate(federation / "server-tls"),
        tls_ca=federation / "server-tls" / "ca.crt",
        state_dir=scratch / "state",
        superexec_secret=secret,
    )
    enrolling = processes.start(
        "enrolment",
        "cloister_enrolment",
        port=enrolment,
        **_certificate(federation / "enrolment-tls"),
        superlink=f"127.0.0.1:{superlink}",
        ca_path=ca_path,
        enrolment_dir=federation / "enrolment",
    )
    starting += [
        (server, f"https://127.0.0.1:{superlink}/health", HEALTHY_SECONDS),
        (enrolling, f"https://127.0.0.1:{enrolment}/enrolment/health", HEALTHY_SECONDS),
    ]
    for service, url, seconds in starting:
        service.wait_healthy(url, seconds, ca_path)
    needed = [service for service, _, _ in starting]

    say(f"training across {training.sites} sites")
    for number in range(1, training.sites + 1):
        name = f"client-{number}"
        rows = {"shard_dir": training.data[number - 1].resolve()} if training.data else {}
        client = processes.start(
            name,
            "cloister_client",
            superlink=f"127.0.0.1:{superlink}",
            ca_path=ca_path,
            enrolment_url=f"https://127.0.0.1:{enrolment}",
            join_token_path=federation / "join" / "join.token",
            site_name=name,
            dealer_url=f"https://127.0.0.1:{dealer}",
            data_dir=scratch / name,
            **rows,
        )
        needed.append(client)
    processes.start(
        "trainer",
        "cloister_trainer",
        superlink=f"127.0.0.1:{superlink}",
        ca_path=ca_path,
        superexec_secret=secret,
        models_dir=home.models,
        events_dir=home.events,
        checkpoints_dir=home.checkpoints,
        work_dir=scratch / "trainer",
        model=training.model,
        settle_seconds=0,
        deal_path=deal,
        **{**training.settings, "clients": training.sites},
    ).wait_done(needed)
    for service in needed:
        service.terminate()


def environment(scratch: Path, *, settings: bool) -> dict[str, str]:
    """Return this process' environment, fit for all services.

    Args:
        scratch: gets what services leave in temporary folders.
        settings: whether the services take settings from it.
    """
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(PREFIX) or (settings and key not in _OF_DEPLOYMENTS)
    }
    path = os.pathsep.join([sysconfig.get_path("scripts"), kept.get("PATH", os.defpath)])
    temporary = scratch / "tmp"
    temporary.mkdir()
    return kept | {
        # Concrete leaves folders behind where it compiles; these go with the rest.
        "TMPDIR": str(temporary),
        # Flower starts its own programs by name.
        "PATH": path,
        "FLWR_HOME": str(scratch / "flwr"),
        # Every process computes on its own thread; more only get in each other's way.
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }


def say(text: str) -> None:
    """Tell people what is done next."""
    sys.stderr.write(f"\n== {text}\n")


def _certificate(folder: Path) -> dict[str, Path]:
    return {"tls_certificate": folder / "tls.crt", "tls_key": folder / "tls.key"}
