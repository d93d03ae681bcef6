"""What all processes have in common: settings prefix, log lines, exit codes."""

import errno
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from cloister_shared.errors import CloisterError

PREFIX = "CLOISTER_"

log = logging.getLogger(__name__)


class ServiceSettings(BaseSettings):
    """Base of every service's settings: environment variables with the prefix CLOISTER_.

    An empty variable counts as not set, which is how Compose passes one that has no value.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True)


Settings = TypeVar("Settings", bound=ServiceSettings)


def configure_logging(service: str) -> None:
    """Write log lines to standard error: time in UTC, level, service, message."""
    formatter = logging.Formatter(
        f"%(asctime)s.%(msecs)03dZ %(levelname)-7s {service}: %(message)s", "%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # httpx logs every request at INFO, with its URL.
    logging.getLogger("httpx").setLevel(logging.WARNING)


def load_settings(settings_class: type[Settings]) -> Settings:
    """Read the settings from the environment.

    Raises:
        CloisterError: naming each variable that is missing or wrong, and what is wrong with it.
    """
    try:
        return settings_class()
    except ValidationError as error:
        lines = [
            f"{PREFIX}{'_'.join(str(part) for part in problem['loc']).upper()}: {problem['msg']}"
            for problem in error.errors()
        ]
        raise CloisterError("wrong settings:\n  " + "\n  ".join(lines)) from None


def run_service(
    service: str, settings_class: type[Settings], main: Callable[[Settings], None]
) -> NoReturn:
    """Run ``main`` with the settings as the whole process, and exit.

    Exit codes: 0 when ``main`` returned, 1 with a message for what the user can mend, 130 and 143
    when interrupted or terminated. Anything else is a defect and shows its traceback.
    """
    configure_logging(service)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        main(load_settings(settings_class))
    except CloisterError as error:
        log.error("%s", error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        log.error("no space left on the volume of %s: free some and start again", error.filename)
        sys.exit(1)
    sys.exit(0)


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


def worker_threads() -> int:
    """Number of threads for CPU-bound work: the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
