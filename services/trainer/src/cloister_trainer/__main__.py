"""Trains once, unless the model is there already, and exits."""

import logging
import os
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from cloister_shared.errors import CloisterError
from cloister_shared.logs import about
from cloister_shared.registry import Registry, Version
from cloister_shared.service import run_service
from cloister_trainer import plan
from cloister_trainer.checkpoint import Checkpoints
from cloister_trainer.following import ServerAppDiedError, follow
from cloister_trainer.progress import Metrics, exposed_metrics
from cloister_trainer.publication import adopted
from cloister_trainer.runs import FlowerRuns
from cloister_trainer.settings import Settings

POLL_SECONDS = 1.0
STOP_SECONDS = 10.0
SUBMISSIONS = 2
"""A ServerApp that was killed is submitted again once; one that is killed twice has a reason that
trying does not mend, such as too little memory."""

log = logging.getLogger(__name__)


def train_once(settings: Settings) -> None:
    """Publish a model of these settings, unless one is published."""
    plan.check(settings)
    digest, registry = plan.inputs_digest(settings), Registry(settings.models_dir)
    if adopted(registry, settings.name, digest, retrain=settings.retrain):
        return
    published = registry.published_from(settings.name, digest)
    before = published.manifest.version if published else 0
    if settings.ca_path is None and not settings.insecure:
        raise CloisterError(
            "set CLOISTER_CA_PATH to the CA certificate that provision makes (trust/ca.crt)"
        )
    if not settings.resume:
        Checkpoints(settings.checkpoints_dir, settings.name, digest, before).discard()
    _wait_for_superlink(settings)
    runs = FlowerRuns(settings.superlink, settings.work_dir, _authorities(settings))
    runs.stop_unfinished()
    with (
        exposed_metrics(settings.host, settings.metrics_port) as metrics,
        _superexec(settings, runs) as superexec,
    ):
        for submission in range(1, SUBMISSIONS + 1):
            try:
                _run(settings, runs, superexec, metrics)
                break
            except ServerAppDiedError as error:
                # It may have been killed just after it had published.
                if _is_new(registry.published_from(settings.name, digest), before):
                    break
                if submission == SUBMISSIONS:
                    raise CloisterError(
                        f"{error}, {SUBMISSIONS} times: has this container enough memory? What it "
                        "had reached is kept, and another start goes on from there"
                    ) from None
                log.warning("%s; submitting the training again, to go on where it was", error)
    _report(registry.published_from(settings.name, digest), before)


def _authorities(settings: Settings) -> Path | None:
    return None if settings.insecure else settings.ca_path


def _run(
    settings: Settings, runs: FlowerRuns, superexec: subprocess.Popen[bytes], metrics: Metrics
) -> None:
    """Submit a run, and return when it has completed; one that has not is stopped."""
    run_id = runs.submit()
    with about(run_id=run_id):
        log.info("submitted run %d", run_id)
        try:
            follow(settings, runs, run_id, superexec, metrics.update)
        except BaseException:
            with suppress(CloisterError):
                runs.stop(run_id)
            raise


def _wait_for_superlink(settings: Settings) -> None:
    authorities = _authorities(settings)
    scheme = "http" if authorities is None else "https"
    verify: ssl.SSLContext | bool = True
    if authorities is not None:
        try:
            verify = ssl.create_default_context(cafile=authorities)
        except (OSError, ssl.SSLError):
            raise CloisterError(
                f"CLOISTER_CA_PATH: {authorities} has no CA certificate in PEM; provision makes it"
            ) from None
    deadline = time.monotonic() + settings.start_deadline
    reason = "it is not ready"
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{scheme}://{settings.superlink}/health", verify=verify).is_success:
                return
        except httpx.HTTPError as error:
            reason = str(error)
        time.sleep(POLL_SECONDS)
    raise CloisterError(
        f"no SuperLink answers at {settings.superlink} within {settings.start_deadline:.0f} s "
        f"({reason}): is the server running, and CLOISTER_SUPERLINK right?"
    )


@contextmanager
def _superexec(settings: Settings, runs: FlowerRuns) -> Iterator[subprocess.Popen[bytes]]:
    """Run the SuperExec, which starts the ServerApp in this container."""
    if not settings.superexec_secret.is_file():
        raise CloisterError(f"{settings.superexec_secret} is missing: provision makes it")
    authorities = _authorities(settings)
    command = [
        "flower-superexec",
        *(["--root-certificates", str(authorities)] if authorities else ["--insecure"]),
        "--runtime-api-address",
        settings.superlink,
        "--superexec-auth-secret-file",
        str(settings.superexec_secret),
        # Else one that outlives a killed trainer takes the next one's run.
        "--parent-pid",
        str(os.getpid()),
    ]
    with subprocess.Popen(command, env=runs.environment()) as process:  # noqa: S603
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _report(published: Version | None, before: int) -> None:
    if published is None or not _is_new(published, before):
        raise CloisterError("the run completed, but no model was published")
    published.verify()
    log.info("published version %d of %s", published.manifest.version, published.manifest.name)


def _is_new(published: Version | None, before: int) -> bool:
    return published is not None and published.manifest.version > before


def main() -> None:
    """Entry point of ``python -m cloister_trainer``."""
    run_service("trainer", Settings, train_once)


if __name__ == "__main__":
    main()
