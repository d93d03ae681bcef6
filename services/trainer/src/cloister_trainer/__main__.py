"""Trains once, unless the model is there already, and exits."""

import logging
import os
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from cloister_shared.errors import CloisterError
from cloister_shared.registry import Registry, Version
from cloister_shared.service import run_service
from cloister_trainer import plan
from cloister_trainer.events import run_events
from cloister_trainer.runs import COMPLETED, FlowerRuns
from cloister_trainer.settings import Settings

POLL_SECONDS = 1.0
STATE_SECONDS = 20.0
"""A ServerApp that is killed is noticed by the SuperLink alone, within about a minute."""
UNANSWERED_SECONDS = 90.0
"""A SuperLink that restarts with its database goes on with the run, and is back within this."""
STOP_SECONDS = 10.0

log = logging.getLogger(__name__)


def train_once(settings: Settings) -> None:
    """Publish a model of these settings, unless one is published."""
    plan.check(settings)
    digest, registry = plan.inputs_digest(settings), Registry(settings.models_dir)
    published = registry.published_from(settings.name, digest)
    if published and not settings.retrain:
        number = published.manifest.version
        in_use = registry.adopt(settings.name, number)
        log.info(
            "version %d of %s is trained already; CLOISTER_RETRAIN=true trains another",
            number,
            settings.name,
        )
        if in_use.manifest.version != number:
            log.info(
                "version %d stays in use (rolled back from %d)", in_use.manifest.version, number
            )
        return
    before = published.manifest.version if published else 0
    if settings.ca_path is None and not settings.insecure:
        raise CloisterError(
            "set CLOISTER_CA_PATH to the CA certificate that provision makes (trust/ca.crt)"
        )
    _wait_for_superlink(settings)
    runs = FlowerRuns(settings.superlink, settings.work_dir, _authorities(settings))
    runs.stop_unfinished()
    with _superexec(settings, runs) as superexec:
        run_id = runs.submit()
        log.info("submitted run %d", run_id)
        try:
            _follow(settings, runs, run_id, superexec)
        except BaseException:
            with suppress(CloisterError):
                runs.stop(run_id)
            raise
    _report(registry.published_from(settings.name, digest), before)


def _authorities(settings: Settings) -> Path | None:
    return None if settings.insecure else settings.ca_path


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


def _follow(
    settings: Settings, runs: FlowerRuns, run_id: int, superexec: subprocess.Popen[bytes]
) -> None:
    """Return when the run has completed.

    The ServerApp's own events tell at once how it ended; the SuperLink is asked now and then, for
    the case that the ServerApp was killed.

    Raises:
        CloisterError: the run failed, with the reason, or the SuperLink is gone.
    """
    events = run_events(settings.events_dir, run_id)
    submitted = asked = answered = time.monotonic()
    told = 0
    while True:
        time.sleep(POLL_SECONDS)
        happened = events.read()
        for event in happened[told:]:
            _tell(event)
            if event["event"] == "failed":
                raise CloisterError(f"the training failed: {event['reason']}")
        told = len(happened)
        published = bool(happened) and happened[-1]["event"] == "published"
        if superexec.poll() is not None and not published:
            raise CloisterError(f"the SuperExec ended with code {superexec.returncode}")
        if not happened and time.monotonic() - submitted >= settings.start_deadline:
            raise CloisterError(
                f"the run did not start within {settings.start_deadline:.0f} s: is another trainer "
                "at work, or CLOISTER_START_DEADLINE too short for this machine?"
            )
        if published or time.monotonic() - asked >= STATE_SECONDS:
            asked = time.monotonic()
            try:
                state = runs.state(run_id)
            except CloisterError as error:
                if asked - answered >= UNANSWERED_SECONDS:
                    raise
                log.warning("%s; asking again", error)
                continue
            answered = asked
            if state.status == COMPLETED:
                return
            if state.is_finished:
                raise CloisterError(f"the run ended as {state.status}: {state.details}")


def _tell(event: dict[str, Any]) -> None:
    match event["event"]:
        case "log":
            log.log(event["level"], "%s", event["message"])
        case "round":
            log.info(
                "round %s: %s sites, %s failures, %s rows, received model: accuracy %.4f, "
                "loss %.4f, %.1f s",
                *(event[key] for key in ("round", "sites", "failures", "examples")),
                *(event[key] for key in ("accuracy", "loss", "seconds")),
            )
        case "final":
            log.info("final model: accuracy %.4f, loss %.4f", event["accuracy"], event["loss"])
        case _:
            pass


def _report(published: Version | None, before: int) -> None:
    if published is None or published.manifest.version <= before:
        raise CloisterError("the run completed, but no model was published")
    published.verify()
    log.info("published version %d of %s", published.manifest.version, published.manifest.name)


def main() -> None:
    """Entry point of ``python -m cloister_trainer``."""
    run_service("trainer", Settings, train_once)


if __name__ == "__main__":
    main()
