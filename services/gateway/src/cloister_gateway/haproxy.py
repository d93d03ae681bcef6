"""The program that does the work."""

import os
import subprocess
from pathlib import Path
from typing import NoReturn

from cloister_shared.errors import CloisterError

PROGRAM = "haproxy"


def check(configuration: Path) -> None:
    """Let HAProxy say whether it could run with this configuration.

    Raises:
        CloisterError: it could not, and why; or HAProxy is not installed.
    """
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command and our own file
            [PROGRAM, "-c", "-f", configuration],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise CloisterError(
            f"{PROGRAM} is not on the PATH: install Debian's package {PROGRAM}"
        ) from None
    if done.returncode != 0:
        raise CloisterError(f"{PROGRAM} does not take the settings:\n{done.stderr.strip()}")


def become(configuration: Path) -> NoReturn:
    """Replace this process by HAProxy, in the foreground, until it is told to stop.

    SIGUSR1 lets what is running end; SIGTERM does not.
    """
    os.execvp(PROGRAM, [PROGRAM, "-db", "-f", str(configuration)])  # noqa: S606 - as above
