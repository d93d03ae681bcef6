"""Waiting for a service that starts at the same time."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from cloister_keyholder.errors import RequestRefused, ServiceUnavailable
from cloister_keyholder.service.api import InferenceService
from cloister_keyholder.service.transport import Transport

POLL_SECONDS = 1.0
REMIND_SECONDS = 30.0

log = logging.getLogger(__name__)


def wait_for_model(  # noqa: PLR0913 - each of them is a caller's to choose
    url: str,
    model: str,
    seconds: float,
    *,
    transport: httpx.BaseTransport | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    api_key: str | None = None,
    ca_path: Path | None = None,
) -> None:
    """Return once the service serves the model; log what is being waited for.

    Args:
        url: of the service.
        model: its name; one that is not published yet is waited for too.
        seconds: how long to wait at most.
        transport: what httpx sends through; its own by default.
        sleep: waits that many seconds.
        clock: seconds of a clock that never goes back.
        api_key: of the service, where it needs one.
        ca_path: PEM file with the CA certificates that are trusted for https, the usual ones by
            default.

    Raises:
        ServiceUnavailable: the time is over; the message says what was missing.
        RequestRefused: the service answers with another error than 404.
    """
    connection = Transport(
        url,
        retry_seconds=0,
        transport=transport,
        sleep=sleep,
        clock=clock,
        api_key=api_key,
        ca_path=ca_path,
    )
    service = InferenceService(connection, model)
    give_up, said, remind = clock() + seconds, "", 0.0
    try:
        while True:
            missing = _missing(connection, service, model)
            if missing is None:
                return
            now = clock()
            if now >= give_up:
                raise ServiceUnavailable(f"after {seconds:g} s still waiting for {missing}")
            if missing != said or now >= remind:
                log.info("waiting for %s (%.0f s left)", missing, give_up - now)
                said, remind = missing, now + REMIND_SECONDS
            sleep(min(POLL_SECONDS, give_up - now))
    finally:
        connection.close()


def _missing(connection: Transport, service: InferenceService, model: str) -> str | None:
    url = connection.url
    try:
        connection.run(service.check_ready())
    except ServiceUnavailable:
        return f"the inference service at {url} to be ready"
    except RequestRefused as error:
        if error.status != 404:
            raise
        return f"model {model} to be published at {url}"
    return None
