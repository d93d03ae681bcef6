"""How commands open a model: by settings, and what the command line says instead."""

from typing import Annotated

import httpx
import typer

from cloister_keyholder.keys.stored_key import KeyFolder
from cloister_keyholder.model import EncryptedModel
from cloister_keyholder.querying.pipeline import Limits
from cloister_keyholder.service.credentials import read_api_key
from cloister_keyholder.settings import Settings

Url = Annotated[str | None, typer.Option(help="Inference service [default: CLOISTER_URL]")]
Model = Annotated[str | None, typer.Option(help="Name of the model [default: CLOISTER_MODEL]")]


def chosen(ctx: typer.Context, url: str | None, model: str | None) -> Settings:
    """Return the settings, with what the command line says."""
    settings = ctx.ensure_object(Settings)
    return settings.model_copy(
        update={"url": url or settings.url, "model": model or settings.model}
    )


def open_model(
    settings: Settings,
    version: int | None = None,
    transport: httpx.BaseTransport | None = None,
) -> EncryptedModel:
    """Open a version of the model, by default the current one; raises as ``EncryptedModel``.

    Args:
        settings: the service, the model, and how it is queried.
        version: of the model.
        transport: what httpx sends through; its own by default.
    """
    return EncryptedModel(
        settings.url,
        settings.model,
        version=version,
        transport=transport,
        retry_seconds=settings.retry_seconds,
        limits=Limits(settings.processes, settings.connections, settings.batch),
        api_key=read_api_key(settings.api_key_path),
        ca_path=settings.ca_path,
        key_folder=KeyFolder(settings.key_store_dir, settings.key_rotate_days),
        client=settings.client,
        compact=settings.compact,
    )
