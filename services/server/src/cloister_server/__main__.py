"""Becomes the Flower SuperLink."""

from cloister_server.secret import ensure_secret
from cloister_server.settings import Settings
from cloister_server.superlink import run_superlink, superlink_options
from cloister_shared.service import run_service


def serve(settings: Settings) -> None:
    """Make the secret if there is none, then be the SuperLink."""
    ensure_secret(settings.superexec_secret)
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    database = settings.state_dir / "superlink.db"
    run_superlink(
        superlink_options(settings.host, settings.port, database, settings.superexec_secret)
    )


def main() -> None:
    """Entry point of ``python -m cloister_server``."""
    run_service("server", Settings, serve)


if __name__ == "__main__":
    main()
