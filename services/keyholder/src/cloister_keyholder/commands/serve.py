"""The command ``keyholder serve``: the HTTP interface for pages and programs of this machine."""

import logging
from typing import Annotated

import httpx
import typer

from cloister_keyholder.commands.opening import Url, open_model
from cloister_keyholder.errors import ClientUnavailable, KeyholderError
from cloister_keyholder.service.api import Description, InferenceService
from cloister_keyholder.service.credentials import read_api_key, trust
from cloister_keyholder.service.transport import Transport
from cloister_keyholder.settings import Settings

DESCRIBE_SECONDS = 2.0
"""How long a service that does not answer is asked again which version is current: people wait."""
STOP_SECONDS = 5
"""What requests that are under way get to end."""

log = logging.getLogger(__name__)


def serve(
    ctx: typer.Context,
    host: Annotated[
        str | None, typer.Option(help="Loopback address [default: CLOISTER_HOST]")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port [default: CLOISTER_PORT]")
    ] = None,
    url: Url = None,
) -> None:
    """Answer the console's page, and programs of this machine, in the clear over loopback.

    For models that a web page cannot hold the key of. Rows are encrypted here, and go no further.
    """
    settings = ctx.ensure_object(Settings)
    stated = {"url": url, "host": host, "port": port}
    run(settings.model_copy(update={name: one for name, one in stated.items() if one is not None}))


def run(settings: Settings) -> None:
    """Serve until told to stop.

    Raises:
        KeyholderError: the address is not loopback's, the port is taken, or a file is missing.
        ClientUnavailable: what serves HTTP is not installed.
    """
    try:
        # Not installed where the key holder serves nobody, as in its images.
        import uvicorn  # noqa: PLC0415

        from cloister_keyholder.serving.app import create_app  # noqa: PLC0415
        from cloister_keyholder.serving.guard import check_loopback  # noqa: PLC0415
        from cloister_keyholder.serving.models import OpenModels  # noqa: PLC0415
        from cloister_keyholder.serving.recording import Recorder  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ClientUnavailable(
            f"{error.name} is missing, which serve needs: install cloister-keyholder[serve]"
        ) from None
    host = check_loopback(settings.host)
    api_key = read_api_key(settings.api_key_path)
    asking = Transport(
        settings.url,
        retry_seconds=min(settings.retry_seconds, DESCRIBE_SECONDS),
        api_key=api_key,
        ca_path=settings.ca_path,
    )

    def describe(name: str) -> Description:
        return asking.run(InferenceService(asking, name).describe(None))

    models = OpenModels(
        describe,
        lambda name, version: open_model(
            settings.model_copy(update={"model": name}),
            version,
            Recorder(httpx.HTTPTransport(verify=trust(settings.ca_path))),
        ),
    )
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(models, asking.url, settings.origins),
            host=host,
            port=settings.port,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
    )
    log.info(
        "serving at http://%s:%d for pages of %s; asks %s",
        f"[{host}]" if ":" in host else host,
        settings.port,
        ", ".join(settings.origins) or "no origin",
        asking.url,
    )
    try:
        server.run()
    finally:
        models.close()
        asking.close()
    if not server.started:
        raise KeyholderError("it did not start; the lines above say why")
