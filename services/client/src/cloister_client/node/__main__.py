"""This site's SuperNode, as a process: ``python -m cloister_client.node``."""

import argparse
import json
import os
import signal
import sys
import threading
import time
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from cloister_client.app import app
from cloister_client.joining.connection import Connection
from cloister_client.node.clientapp import forget_other_rows, keep_rows, work_of
from cloister_client.node.fleet import FailedRequestError, Fleet
from cloister_client.node.inbox import Inbox
from cloister_client.node.worker import Worker, WorkerGoneError
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import ESTIMATORS
from cloister_shared.logs import write_once
from cloister_shared.service import ServiceSettings, run_service


def serve(arguments: argparse.Namespace) -> NoReturn:
    """Answer messages until the process is told to end.

    Raises:
        CloisterError: the SuperLink does not take this node, or the worker has ended.
    """
    _import_estimators()
    write_once("flwr")
    # First of all: what is forked has neither the key nor a connection, and no threads yet.
    with Worker(work_of(app), forget_other_rows, keep_rows) as worker:
        if arguments.until_eof:
            threading.Thread(target=_terminate_at_eof, daemon=True).start()
        connection = Connection(arguments.superlink, arguments.ca, arguments.key)
        with Fleet(connection) as fleet:
            inbox = Inbox(
                fleet,
                worker,
                node_config=arguments.node_config,
                message_seconds=arguments.message_seconds,
            )
            while True:
                try:
                    pause = inbox.step()
                except FailedRequestError as error:
                    raise CloisterError(f"the SuperLink refuses this node: {error}") from None
                except WorkerGoneError as error:
                    raise CloisterError(str(error)) from None
                time.sleep(pause)


def _import_estimators() -> None:
    """Import what sites can fit, so that no child has to."""
    for row in ESTIMATORS.values():
        if row.family == "linear":
            import_module(row.sklearn_class.rpartition(".")[0])


def _terminate_at_eof() -> None:
    # Not through sys.stdin, whose lock the end of the process would wait for.
    while os.read(sys.stdin.fileno(), 1 << 16):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--superlink", required=True, help="host and port")
    parser.add_argument(
        "--node-config", required=True, type=json.loads, help="JSON: what the ClientApp is told"
    )
    parser.add_argument("--message-seconds", required=True, type=float, help="for one message")
    parser.add_argument("--ca", type=Path, help="PEM file with the CA certificates to trust")
    parser.add_argument("--key", type=Path, help="the site's key; without: no TLS either")
    parser.add_argument(
        "--until-eof", action="store_true", help="end when standard input ends: with its parent"
    )
    return parser.parse_args()


def main() -> None:
    """Entry point of ``python -m cloister_client.node``."""
    arguments = _arguments()
    run_service("client", ServiceSettings, lambda _settings: serve(arguments))


if __name__ == "__main__":
    main()
