"""The metrics over HTTP, on a port of their own."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server

from cloister_shared.errors import CloisterError

log = logging.getLogger(__name__)


@contextmanager
def exposed(registry: CollectorRegistry, host: str, port: int) -> Iterator[int]:
    """Serve ``registry`` to Prometheus, from a thread, and give the port that it listens on.

    Args:
        registry: the metrics.
        host: address to listen on.
        port: TCP port to listen on; 0 takes a free one, which the log names.

    Raises:
        CloisterError: the port cannot be listened on.
    """
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise CloisterError(
            f"the metrics cannot be served at port {port} of {host} ({error.strerror}): set "
            "CLOISTER_METRICS_PORT to another port, or to 0 for a free one"
        ) from None
    log.info("metrics at http://%s:%d/metrics", host, server.server_port)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
