"""Becomes the fleet's address, or with the argument ``check`` only sees whether it could."""

import sys

from cloister_fleet.configuration import render
from cloister_fleet.settings import Settings
from cloister_shared import haproxy
from cloister_shared.service import run_service


def check(settings: Settings) -> None:
    """See whether it could start with these settings."""
    haproxy.check(render(settings))


def serve(settings: Settings) -> None:
    """Be the fleet's address until told to stop."""
    haproxy.become(render(settings))


def main() -> None:
    """Entry point of ``python -m cloister_fleet [check]``."""
    run_service("fleet", Settings, check if sys.argv[1:] == ["check"] else serve)


if __name__ == "__main__":
    main()
