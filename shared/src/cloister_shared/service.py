"""What all processes have in common: settings prefix, log lines, exit codes."""

import errno
import logging
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import NoReturn, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from cloister_shared.errors import CloisterError
from cloister_shared.logs import LogFormat, configure_logging

PREFIX = "CLOISTER_"
LOG_FORMAT = f"{PREFIX}LOG_FORMAT"

log = logging.getLogger(__name__)

_ADVICE = {
    errno.ENOSPC: "free some space on the volume and start again",
    errno.EDQUOT: "free some space on the volume or raise its quota, and start again",
    errno.EROFS: "mount the volume writable and start again",
    errno.EACCES: "give the user of this process access to it and start again",
    errno.EPERM: "give the user of this process access to it and start again",
}
"""What to do about errors that come from outside, by error number."""


class ServiceSettings(BaseSettings):
    """Base of every service's settings: environment variables with the prefix CLOISTER_.

    An empty variable counts as not set, which is how Compose passes one that has no value.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True)

    log_format: LogFormat = "text"
    """Form of the log lines."""


Settings = TypeVar("Settings", bound=ServiceSettings)


def load_settings(settings_class: type[Settings]) -> Settings:
    """Read the settings from the environment.

    Raises:
        CloisterError: naming each variable that is missing or wrong, and what is wrong with it.
    """
    try:
        return settings_class()
    except ValidationError as error:
        lines = [
            f"{_variable(settings_class, problem['loc'])}{problem['msg']}"
            for problem in error.errors(include_input=False)
        ]
        raise CloisterError("wrong settings:\n  " + "\n  ".join(lines)) from None
    except SettingsError as error:
        # Raised for a list or a table that is not JSON, and worded 'error parsing value for field
        # "<field>" from ...'.
        field = str(error).split('"')[1]
        raise CloisterError(
            f"wrong settings:\n  {_variable(settings_class, (field,))}must be JSON"
        ) from None


def _variable(settings_class: type[BaseSettings], loc: tuple[int | str, ...]) -> str:
    if not loc:
        return ""
    field, *inside = (str(part) for part in loc)
    # A field with an alias goes by the alias, which has no prefix.
    name = f"{PREFIX}{field}" if field in settings_class.model_fields else field
    return f"{name.upper()}{''.join(f'[{part}]' for part in inside)}: "


def run_service(
    service: str, settings_class: type[Settings], main: Callable[[Settings], None]
) -> NoReturn:
    """Run ``main`` with the settings as the whole process, and exit.

    Exit codes: 0 when ``main`` returned; 1 with a message for what the user can mend, a full or
    unwritable volume included; 130 and 143 when interrupted or terminated; 141 when whoever reads
    its output stops. Anything else is a defect: it shows its traceback and exits 1.
    """
    # Before the settings are read: what is wrong with them has to be told in the same form.
    form: LogFormat = "json" if os.environ.get(LOG_FORMAT) == "json" else "text"
    configure_logging(service, form)
    if form == "json":
        sys.excepthook = _log_defect
    signal.signal(signal.SIGTERM, _terminate)
    try:
        main(load_settings(settings_class))
        sys.stdout.flush()
    except CloisterError as error:
        log.error("%s", error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        # What is still held for it would be written at the end, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0)
        if advice is None:
            raise
        # A write that fails does not know its file: the name is there only where open failed.
        log.error(
            "%s%s: %s", error.strerror, f" ({error.filename})" if error.filename else "", advice
        )
        sys.exit(1)
    sys.exit(0)


def _log_defect(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    log.critical("a defect ended the process", exc_info=(kind, error, traceback))


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


def worker_threads() -> int:
    """Number of threads for CPU-bound work: the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
