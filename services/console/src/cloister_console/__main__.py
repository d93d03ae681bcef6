"""Serves the page until it is told to stop."""

import uvicorn

from cloister_console.app import create_app
from cloister_console.settings import Settings
from cloister_shared.errors import CloisterError
from cloister_shared.service import run_service

CONNECTIONS = 128
"""At a time; further ones are answered 503."""


def serve(settings: Settings) -> None:
    """Serve the page over HTTP.

    Raises:
        CloisterError: a folder is missing, or the port is taken.
    """
    for folder in (settings.page_dir / "node_modules", settings.browser_client_dir / "dist"):
        if not folder.is_dir():
            raise CloisterError(f"{folder} is missing: make setup builds it")
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(settings),
            host=settings.host,
            port=settings.port,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS,
        )
    )
    server.run()
    if not server.started:
        raise CloisterError("the service did not start; the lines above say why")


def main() -> None:
    """Entry point of ``python -m cloister_console``."""
    run_service("console", Settings, serve)


if __name__ == "__main__":
    main()
