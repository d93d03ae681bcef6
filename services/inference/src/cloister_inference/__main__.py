"""Serves until told to stop."""

import os

# Evaluations run side by side, one to a core. Concrete's OpenMP runtime would start a thread for
# every core under each of them, and reads this variable when it is loaded, which is below.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import uvicorn

from cloister_inference.app import create_app
from cloister_inference.evaluation_keys import KeySettings
from cloister_inference.settings import Settings
from cloister_shared.errors import CloisterError
from cloister_shared.registry import Registry
from cloister_shared.service import run_service


def serve(settings: Settings) -> None:
    """Listen, and on SIGTERM or SIGINT answer what is running before returning.

    Raises:
        CloisterError: the service could not start.
    """
    app = create_app(
        Registry(settings.artifacts_dir),
        threads=settings.threads,
        max_batch=settings.max_batch,
        keys=KeySettings(
            dir=settings.keys_dir,
            key_bytes=settings.key_bytes,
            quota_bytes=settings.key_quota_bytes,
            days=settings.key_days,
            cache_bytes=settings.key_cache_bytes,
        ),
    )
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            # Stated, so that the same runs wherever faster ones happen to be installed.
            http="h11",
            loop="asyncio",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=settings.shutdown_seconds,
        )
    )
    server.run()
    if not server.started:
        raise CloisterError("the service did not start; the lines above say why")


def main() -> None:
    """Entry point of ``python -m cloister_inference``."""
    run_service("inference", Settings, serve)


if __name__ == "__main__":
    main()
