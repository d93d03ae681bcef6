"""The whole way on one machine, without Docker: deal, train, compile, serve, evaluate."""

import os
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from cloister_cli.processes import Processes, Service, free_ports

HEALTHY_SECONDS = 120.0
DOWNLOAD_SECONDS = 1800.0
"""A dealer that has to download its dataset first is healthy only then."""


@dataclass(frozen=True)
class Demo:
    """What to run."""

    dataset: str
    estimator: str
    """scikit-learn class that sites fit."""
    clients: int
    samples: int
    """Held-out samples that are evaluated encrypted; 0 for all."""
    report: Path
    """Where the key holder's report is written as JSON."""
    mnist_path: Path | None


def run_demo(demo: Demo, folder: Path) -> None:
    """Run every service as a process on loopback, and stop them all, whatever happens.

    Args:
        demo: what to run.
        folder: an empty folder for data, models, artifacts and logs.

    Raises:
        ServiceFailedError: a service ended badly.
    """
    superlink, dealer, enrolment, inference = free_ports(4)
    federation = folder / "federation"
    secret, ca_path = federation / "control" / "superexec.secret", federation / "trust" / "ca.crt"
    # As many shards as sites: every row is at some site.
    deal = {"dataset": demo.dataset, "shards": demo.clients, "clients": demo.clients}
    if demo.mnist_path:
        deal["mnist_path"] = demo.mnist_path.resolve()
    registries = {
        "model": demo.dataset,
        "models_dir": folder / "models",
        "artifacts_dir": folder / "artifacts",
    }
    with Processes(folder, _environment(folder)) as processes:
        needed: list[Service] = []

        _say("making certificates and secrets")
        processes.start("provision", "cloister_provision", federation_dir=federation).wait_done([])

        _say(f"dealing {demo.dataset} and starting the SuperLink")
        dealing = processes.start(
            "dealer",
            "cloister_dealer",
            port=dealer,
            **_certificate(federation / "dealer-tls"),
            shards_dir=folder / "shards",
            held_out_dir=folder / "held-out",
            **deal,
        )
        server = processes.start(
            "server",
            "cloister_server",
            port=superlink,
            **_certificate(federation / "server-tls"),
            tls_ca=federation / "server-tls" / "ca.crt",
            state_dir=folder / "state",
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
        for service, url, seconds in (
            (dealing, f"https://127.0.0.1:{dealer}/health", DOWNLOAD_SECONDS),
            (server, f"https://127.0.0.1:{superlink}/health", HEALTHY_SECONDS),
            (enrolling, f"https://127.0.0.1:{enrolment}/enrolment/health", HEALTHY_SECONDS),
        ):
            service.wait_healthy(url, seconds, ca_path)
            needed.append(service)

        _say(f"training across {demo.clients} sites")
        for number in range(1, demo.clients + 1):
            client = processes.start(
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
            needed.append(client)
        processes.start(
            "trainer",
            "cloister_trainer",
            superlink=f"127.0.0.1:{superlink}",
            ca_path=ca_path,
            superexec_secret=secret,
            models_dir=registries["models_dir"],
            events_dir=folder / "events",
            work_dir=folder / "trainer",
            model=demo.dataset,
            dataset=demo.dataset,
            estimator=demo.estimator,
            clients=demo.clients,
            shards=demo.clients,
            settle_seconds=0,
        ).wait_done(needed)
        for service in needed:
            service.terminate()

        _say("compiling to run on ciphertexts, and proving it")
        processes.start("compiler", "cloister_compiler", **registries).wait_done([])

        _say("serving, and evaluating held-out samples encrypted")
        serving = processes.start(
            "inference",
            "cloister_inference",
            port=inference,
            artifacts_dir=registries["artifacts_dir"],
            metrics_port=0,
            # Nobody else sends it anything.
            drain_seconds=0,
        )
        serving.wait_healthy(f"http://127.0.0.1:{inference}/v2/health/ready", HEALTHY_SECONDS)
        processes.start(
            "keyholder",
            "cloister_keyholder",
            "evaluate",
            "--samples",
            str(demo.samples),
            url=f"http://127.0.0.1:{inference}",
            model=demo.dataset,
            held_out_dir=folder / "held-out",
            report_path=demo.report.resolve(),
        ).wait_done([serving])


def _certificate(folder: Path) -> dict[str, Path]:
    return {"tls_certificate": folder / "tls.crt", "tls_key": folder / "tls.key"}


def _environment(folder: Path) -> dict[str, str]:
    """Return this process's environment without stray settings, fit for all services."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("CLOISTER_")}
    path = os.pathsep.join([sysconfig.get_path("scripts"), kept.get("PATH", os.defpath)])
    temporary = folder / "tmp"
    temporary.mkdir()
    return kept | {
        # Concrete leaves folders behind where it compiles; these go with the rest.
        "TMPDIR": str(temporary),
        # Flower starts its own programs by name.
        "PATH": path,
        "FLWR_HOME": str(folder / "flwr"),
        # Every process computes on its own thread; more only get in each other's way.
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _say(text: str) -> None:
    sys.stderr.write(f"\n== {text}\n")
