"""Serves, or does what the command line says."""

import argparse
import logging
from functools import partial

import uvicorn

from cloister_enrolment import commands
from cloister_enrolment.admission import Admission
from cloister_enrolment.app import create_app
from cloister_enrolment.attempts import Attempts
from cloister_enrolment.join_tokens import JoinTokens
from cloister_enrolment.settings import Settings
from cloister_enrolment.superlink import SuperLink
from cloister_shared.errors import CloisterError
from cloister_shared.joining import JOIN_TOKENS
from cloister_shared.service import run_service
from cloister_shared.tls import server_context

CONNECTIONS = 128
"""At a time; further ones are answered 503."""
KEEP_ALIVE_SECONDS = 5
HEAD_BYTES = 16 << 10

log = logging.getLogger(__name__)


def serve(settings: Settings) -> None:
    """Enrol sites over HTTPS until told to stop.

    Raises:
        CloisterError: a file is missing or damaged, or the port is taken.
        OSError: a file cannot be read.
    """
    tls = server_context(settings.tls_certificate, settings.tls_key)
    admission = Admission(settings.enrolment_dir, SuperLink(settings.superlink, settings.ca_path))
    tokens = JoinTokens(settings.enrolment_dir / JOIN_TOKENS)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(tokens, admission, Attempts()),
            host=settings.host,
            port=settings.port,
            http="h11",
            h11_max_incomplete_event_size=HEAD_BYTES,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            ssl_context_factory=lambda *_: tls,
        )
    )
    server.run()
    if not server.started:
        raise CloisterError("the service did not start; the lines above say why")


def act(arguments: argparse.Namespace, settings: Settings) -> None:
    """Do what the command line says.

    Raises:
        CloisterError: it cannot be done; the message says why.
        OSError: a file cannot be read or written.
    """
    folder = settings.enrolment_dir
    match arguments.action:
        case "invite":
            commands.invite(folder, arguments.name, arguments.days, arguments.uses)
        case "list":
            commands.show(folder)
        case "revoke":
            superlink = SuperLink(settings.superlink, settings.ca_path)
            commands.revoke(folder, Admission(folder, superlink), arguments.name)
        case _:
            serve(settings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="enrolment", description="Enrol sites in the federation; without ACTION, serve."
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    actions.add_parser("serve", help="enrol sites over HTTPS")
    invite = actions.add_parser("invite", help="print a join token, once, on standard output")
    invite.add_argument("name", metavar="NAME", help="whom it is for")
    invite.add_argument("--days", type=float, default=7, help="that it is good for [default: 7]")
    invite.add_argument("--uses", type=int, default=1, help="sites it enrols [default: 1]")
    actions.add_parser("list", help="print tokens and sites")
    revoke = actions.add_parser("revoke", help="end the token and the site of a name")
    revoke.add_argument("name", metavar="NAME")
    return parser


def main() -> None:
    """Entry point of ``python -m cloister_enrolment [serve | invite | list | revoke]``."""
    run_service("enrolment", Settings, partial(act, _parser().parse_args()))


if __name__ == "__main__":
    main()
