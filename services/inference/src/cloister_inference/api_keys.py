"""The command that manages API keys: ``python -m cloister_inference.api_keys``."""

import argparse
import logging
import sys
from functools import partial

from cloister_inference.access.credentials import ApiKeyStore
from cloister_inference.settings import Settings
from cloister_shared.errors import CloisterError
from cloister_shared.service import run_service

log = logging.getLogger(__name__)


def manage(arguments: argparse.Namespace, settings: Settings) -> None:
    """Do what the command line says.

    Raises:
        CloisterError: it cannot be done; the message says why.
        OSError: the file of API keys cannot be read or written.
    """
    if settings.api_keys_path is None:
        raise CloisterError("set CLOISTER_API_KEYS_PATH to the file that holds the API keys")
    store = ApiKeyStore(settings.api_keys_path)
    if arguments.action == "create":
        token = store.create(arguments.name, arguments.rate, operator=arguments.operator)
        # The only time that it is seen: standard output has it alone.
        sys.stdout.write(f"{token}\n")
        sys.stdout.flush()
        log.info(
            "created API key %s (%s). It is not stored and cannot be shown again: keep it now",
            arguments.name,
            arguments.rate or "no limit",
        )
    elif arguments.action == "revoke":
        store.revoke(arguments.name)
        log.info("revoked API key %s: running services refuse it within a second", arguments.name)
    else:
        _list(store)


def _list(store: ApiKeyStore) -> None:
    lines = [("NAME", "ID", "CREATED", "LIMIT", "OPERATOR")]
    lines += [
        (
            key.name,
            key.id,
            f"{key.created:%Y-%m-%dT%H:%M:%SZ}",
            key.rate or "-",
            "yes" if key.operator else "-",
        )
        for key in store.stored()
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        sys.stdout.write("  ".join(cells).rstrip() + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="api-keys",
        description="Manage the API keys in the file that CLOISTER_API_KEYS_PATH names.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="add a key and print it, once, on standard output")
    create.add_argument("name", metavar="NAME", help="lower-case letters, digits and -")
    create.add_argument(
        "--rate",
        metavar="N/second|N/minute",
        help="ciphertexts of inference, and other requests, at most [default: no limit]",
    )
    create.add_argument(
        "--operator", action="store_true", help="may put versions of models into use"
    )
    actions.add_parser("list", help="print all keys: names, ids, dates, limits")
    revoke = actions.add_parser("revoke", help="remove a key; it is refused within a second")
    revoke.add_argument("name", metavar="NAME")
    return parser


def main() -> None:
    """Entry point of ``python -m cloister_inference.api_keys``."""
    run_service("api-keys", Settings, partial(manage, _parser().parse_args()))


if __name__ == "__main__":
    main()
