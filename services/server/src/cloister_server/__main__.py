"""Becomes the Flower SuperLink."""

import os

from cloister_server.secret import ensure_secret
from cloister_server.settings import Settings
from cloister_server.superlink import superlink_command
from cloister_shared.errors import CloisterError
from cloister_shared.flower import flower_environment
from cloister_shared.service import run_service


def serve(settings: Settings) -> None:
    """Make the secret if there is none, then replace this process by the SuperLink."""
    ensure_secret(settings.superexec_secret)
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    command = superlink_command(
        settings.host, settings.port, settings.state_dir / "superlink.db", settings.superexec_secret
    )
    try:
        os.execvpe(command[0], command, flower_environment())  # noqa: S606
    except FileNotFoundError:
        raise CloisterError(f"{command[0]} is not on PATH: is flwr installed?") from None


def main() -> None:
    """Entry point of ``python -m cloister_server``."""
    run_service("server", Settings, serve)


if __name__ == "__main__":
    main()
