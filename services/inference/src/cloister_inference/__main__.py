"""Serves until told to stop."""

import logging
import os

# Evaluations run side by side, one to a core. Concrete's OpenMP runtime would start a thread for
# every core under each of them, and reads this variable when it is loaded, which is below.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import uvicorn

from cloister_inference.access.control import AccessControl, check_exposure
from cloister_inference.api.connections import KEEP_ALIVE_SECONDS, BoundedProtocol
from cloister_inference.app import create_app
from cloister_inference.lifecycle import DrainingServer, Lifecycle, hold_interrupts
from cloister_inference.observability.exposition import exposed
from cloister_inference.observability.metrics import Metrics
from cloister_inference.settings import Settings
from cloister_shared.errors import CloisterError
from cloister_shared.registry import Registry
from cloister_shared.service import run_service
from cloister_shared.tls import server_context

SERVICE = "inference"


def serve(settings: Settings) -> None:
    """Listen, and on SIGTERM or SIGINT answer what is running before returning.

    Raises:
        CloisterError: the service could not start.
    """
    access = AccessControl(settings.api_keys_path)
    check_exposure(settings.published_host or settings.host, access)
    tls = None
    if settings.tls_certificate and settings.tls_key:
        tls = server_context(settings.tls_certificate, settings.tls_key)
    metrics, lifecycle = Metrics(), Lifecycle()
    metrics.watch_volume("artifacts", settings.artifacts_dir)
    metrics.watch_volume("evaluation-keys", settings.keys_dir)
    app = create_app(
        Registry(settings.artifacts_dir),
        settings.options(),
        access=access,
        metrics=metrics,
        lifecycle=lifecycle,
    )
    server = DrainingServer(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            http=BoundedProtocol,
            loop="uvloop",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=settings.shutdown_seconds,
            ssl_context_factory=(lambda *_: tls) if tls else None,
        ),
        lifecycle,
        settings.drain_seconds,
    )
    with exposed(metrics.registry, settings.host, settings.metrics_port):
        server.run()
    if not server.started:
        raise CloisterError("the service did not start; the lines above say why")
    if server.exit_code:
        # Leaving in the ordinary way would wait for evaluations that nobody waits for.
        logging.shutdown()
        os._exit(server.exit_code)


def main() -> None:
    """Entry point of ``python -m cloister_inference``."""
    hold_interrupts()
    run_service(SERVICE, Settings, serve)


if __name__ == "__main__":
    main()
