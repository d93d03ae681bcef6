"""The HTTP interface: the page, where it finds the other services, and trainings."""

import logging
from typing import Annotated

from fastapi import FastAPI, Query, Request
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.staticfiles import StaticFiles

from cloister_console.policy import SecurityHeaders, security_headers
from cloister_console.settings import Settings
from cloister_console.trainings import Events, NoTrainingError, Summary, Trainings

log = logging.getLogger(__name__)


class Configuration(BaseModel):
    """Where the page finds the services that it talks to by itself."""

    service_url: str
    """Origin of the inference service."""
    keyholder_url: str | None
    """Origin of the key holder's loopback interface."""


def create_app(settings: Settings) -> FastAPI:
    """Return the application; the folders that it serves must be there."""
    app = FastAPI(title="Cloister console", docs_url=None, redoc_url=None, openapi_url=None)
    # A page elsewhere whose name resolves to this machine would read what is here.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(settings.names))
    reached = filter(None, (settings.url, settings.keyholder_url))
    app.add_middleware(SecurityHeaders, headers=security_headers(reached))
    page, client = settings.page_dir, settings.browser_client_dir
    trainings = Trainings(settings.events_dir)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ready"}

    @app.get("/api/configuration")
    async def configuration() -> Configuration:
        return Configuration(service_url=settings.url, keyholder_url=settings.keyholder_url)

    # No coroutines: they read files, in threads.
    @app.get("/api/trainings")
    def summaries() -> list[Summary]:
        return trainings.summaries()

    @app.get("/api/trainings/{run}/events")
    def events(run: str, offset: Annotated[int, Query(ge=0, lt=1 << 53)] = 0) -> Events:
        return trainings.events(run, offset)

    @app.exception_handler(NoTrainingError)
    async def unknown(_request: Request, error: NoTrainingError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 404)

    @app.exception_handler(OSError)
    async def unreadable(_request: Request, error: OSError) -> JSONResponse:
        log.error("the events cannot be read: %s", error)
        detail = "the events of trainings cannot be read; the console's log says why"
        return JSONResponse({"detail": detail}, 503)

    @app.get("/", response_class=FileResponse)
    async def index() -> FileResponse:
        return FileResponse(page / "index.html")

    @app.get("/style.css", response_class=FileResponse)
    async def style() -> FileResponse:
        return FileResponse(page / "style.css")

    for path, folder in {
        "/src": page / "src",
        "/uplot": page / "node_modules" / "uplot" / "dist",
        "/client/src": client / "src",
        "/client/dist": client / "dist",
    }.items():
        app.mount(path, StaticFiles(directory=folder))
    return app
