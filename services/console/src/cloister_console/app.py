"""The HTTP interface: the page, where it finds the other services, and trainings."""

from fastapi import FastAPI
from fastapi.responses import FileResponse
from pydantic import BaseModel
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.staticfiles import StaticFiles

from cloister_console.policy import SecurityHeaders, security_headers
from cloister_console.settings import Settings


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

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ready"}

    @app.get("/api/configuration")
    async def configuration() -> Configuration:
        return Configuration(service_url=settings.url, keyholder_url=settings.keyholder_url)

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
