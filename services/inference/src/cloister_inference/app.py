"""The application, put together."""

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path

from fastapi import Depends, FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from cloister_inference.access.control import AccessControl
from cloister_inference.access.rate_limits import RateLimits
from cloister_inference.api import openapi
from cloister_inference.api.answers import install_handlers
from cloister_inference.api.body import HeldBytes
from cloister_inference.api.endpoints import ROUTERS, inference
from cloister_inference.api.endpoints.access import Authentication, count_request
from cloister_inference.api.openapi import describe_access
from cloister_inference.keys.evaluation_keys import EvaluationKeys
from cloister_inference.lifecycle import Lifecycle
from cloister_inference.observability.metrics import Metrics
from cloister_inference.observability.telemetry import Telemetry
from cloister_inference.options import Options
from cloister_inference.serving.choices import Choices
from cloister_inference.serving.data_plane import DataPlane
from cloister_inference.serving.model import load_model
from cloister_inference.serving.poller import Poller
from cloister_inference.serving.repository import Repository
from cloister_inference.serving.scheduler import Scheduler
from cloister_shared.open_inference import CLIENT_DIGEST
from cloister_shared.registry import Registry

log = logging.getLogger(__name__)


class _Application(FastAPI):
    """An application that is observed from outside all of Starlette's own layers.

    What ``add_middleware`` adds never sees the answer to a defect.
    """

    def build_middleware_stack(self) -> ASGIApp:
        return Telemetry(super().build_middleware_stack(), self.state.metrics, self.state.lifecycle)


def create_app(
    registry: Registry,
    options: Options,
    *,
    access: AccessControl | None = None,
    metrics: Metrics | None = None,
    lifecycle: Lifecycle | None = None,
) -> FastAPI:
    """Make the application; its models live from its start-up to its shutdown.

    Args:
        registry: the artifacts to serve.
        options: how it serves.
        access: who may use it; everybody by default.
        metrics: get what is counted and timed; its own, which nobody reads, by default.
        lifecycle: tells when the process is to stop; never, by default.
    """
    metrics, lifecycle = metrics or Metrics(), lifecycle or Lifecycle()
    metrics.deadline_seconds.set(options.deadline_seconds)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # Left last: the compiled libraries are in use until the last evaluation has ended.
        with tempfile.TemporaryDirectory(prefix="cloister-inference-") as work_dir:
            load = partial(load_model, work_dir=Path(work_dir), evaluator=options.evaluator)
            repository = Repository(
                registry,
                load,
                metrics,
                keep=options.loaded_versions,
                choices=Choices(options.choices_dir),
            )
            with Scheduler(options.threads, options.queue, metrics) as scheduler:
                app.state.data_plane = DataPlane(repository, scheduler, options, metrics)
                app.state.evaluation_keys = EvaluationKeys(repository, options.keys)
                sweeping = asyncio.create_task(app.state.evaluation_keys.sweep())
                poller = Poller(repository.look, options.poll_seconds).start()
                log.info("serving with %d threads", options.threads)
                try:
                    yield
                finally:
                    sweeping.cancel()
                    await asyncio.to_thread(poller.stop)

    app = _Application(
        title="Cloister inference",
        summary="Evaluates models on encrypted inputs over the Open Inference Protocol v2.",
        description=openapi.DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        openapi_tags=openapi.TAGS,
        generate_unique_id_function=openapi.operation_id,
        version=version("cloister-inference"),
        lifespan=lifespan,
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.metrics = metrics
    app.state.lifecycle = lifecycle
    app.state.held = HeldBytes()
    app.state.model_control = options.model_control
    app.openapi = partial(openapi.document, app)  # type: ignore[method-assign] # FastAPI's own way
    install_handlers(app, [route for router in ROUTERS for route in router.routes])
    app.state.rate_limits = RateLimits()
    app.add_middleware(Authentication, access=access or AccessControl())
    if options.cors_origins:
        # In front of authentication: browsers ask beforehand, and then show no API key.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=options.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", CLIENT_DIGEST],
            expose_headers=["Retry-After", "Server-Timing"],
        )
    for router in ROUTERS:
        # Inference counts its ciphertexts itself.
        counting = [] if router is inference.router else [Depends(count_request)]
        app.include_router(router, dependencies=counting)
    describe_access(app)
    return app
