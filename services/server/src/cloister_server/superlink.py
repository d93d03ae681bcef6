"""The SuperLink: its command line, and a database that waits rather than fails."""

import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection
from typing import Any

from sqlalchemy import event
from sqlalchemy.pool import ConnectionPoolEntry, Pool

from cloister_server.pace import CLEANUP_SECONDS, at_most_every
from cloister_server.replies import own_replies_only
from cloister_shared.flower import flower_environment
from cloister_shared.logs import write_once

BUSY_SECONDS = 120
"""How long a write waits for another. Flower's own 5 seconds are less than a slow disk may take to
sync, and then the SuperLink answers 500 and the run fails."""
_WAITS = "cloister waits for locks"
UPLOAD_SECONDS = 60
"""How long the SuperLink waits for the next piece of a reply, of 5 MiB at most, before it takes the
site for lost; the trainer waits as long. Flower's own are 180."""


@dataclass(frozen=True)
class TlsFiles:
    """PEM files."""

    certificate: Path
    """Of the SuperLink, then any intermediate ones."""
    key: Path
    """The certificate's."""
    authorities: Path
    """CA certificates that the certificate is verified with."""


def superlink_options(
    host: str, port: int, database: Path, secret: Path, tls: TlsFiles | None
) -> list[str]:
    """Return the options to run the SuperLink with.

    ServerApps run outside of it, in the trainer: with process isolation only a SuperExec that
    knows the secret is given tasks, and nothing is installed at run time. With TLS, only nodes
    whose keys are registered are let in; without, everybody.
    """
    return [
        *(_secure(tls) if tls else ["--insecure"]),
        "--host",
        host,
        "--port",
        str(port),
        "--isolation",
        "process",
        "--superexec-auth-secret-file",
        str(secret),
        "--database",
        str(database),
        "--disable-runtime-dependency-installation",
    ]


def _secure(tls: TlsFiles) -> list[str]:
    return [
        "--ssl-certfile",
        str(tls.certificate),
        "--ssl-keyfile",
        str(tls.key),
        "--ssl-ca-certfile",
        str(tls.authorities),
        "--enable-supernode-auth",
    ]


def run_superlink(options: list[str]) -> None:
    """Be the SuperLink until it is stopped; it handles signals itself."""
    os.environ.update(flower_environment())
    wait_for_locks()
    # Its lines would tell of modules of its own.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # Flower reads its environment when it is imported.
    from flwr.supercore.corestate import sql_corestate  # noqa: PLC0415
    from flwr.superlink.cli import flower_superlink  # noqa: PLC0415
    from flwr.superlink.servicer.fleet import fleet_handlers  # noqa: PLC0415

    from cloister_server.deliveries import until_confirmed  # noqa: PLC0415

    fleet_handlers.push_messages = own_replies_only(fleet_handlers.push_messages)
    fleet_handlers.pull_messages = until_confirmed(fleet_handlers.pull_messages)
    sql_corestate.OBJECT_PUSH_SESSION_TTL_SECONDS = UPLOAD_SECONDS  # type: ignore[attr-defined]
    state = sql_corestate.SqlCoreState
    state._cleanup_expired_task_tokens = at_most_every(  # type: ignore[assignment]  # noqa: SLF001 - Flower has no setting for it
        CLEANUP_SECONDS,
        state._cleanup_expired_task_tokens,  # noqa: SLF001
    )
    write_once("flwr")
    sys.argv = ["flower-superlink", *options]
    flower_superlink()


def wait_for_locks() -> None:
    """Make every use of a SQLite connection of this process wait for locks.

    Flower sets its own time when it connects, so it is set again when one is first taken into use.
    """
    event.listen(Pool, "checkout", _set_busy_timeout)


def _set_busy_timeout(connection: Connection, record: ConnectionPoolEntry, _proxy: Any) -> None:
    # What is noted there is gone with the connection.
    if _WAITS not in record.info:
        connection.execute(f"PRAGMA busy_timeout = {1000 * BUSY_SECONDS}")
        record.info[_WAITS] = True
