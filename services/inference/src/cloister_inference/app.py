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
from starlette.types import ASGIApp

from cloister_inference.access import AccessControl
from cloister_inference.body import HeldBodies
from cloister_inference.data_plane import DataPlane
from cloister_inference.endpoints import ROUTERS, inference
from cloister_inference.endpoints.access import Authentication, count_request
from cloister_inference.evaluator import EvaluatorSetting
from cloister_inference.evaluators import Evaluators
from cloister_inference.lifecycle import Lifecycle
from cloister_inference.limits import Limits
from cloister_inference.metrics import Metrics
from cloister_inference.model import load_model
from cloister_inference.openapi import describe_access
from cloister_inference.poller import Poller
from cloister_inference.problems import install_handlers
from cloister_inference.rate_limits import RateLimits
from cloister_inference.repository import Repository
from cloister_inference.telemetry import Telemetry
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
    limits: Limits,
    *,
    evaluator: EvaluatorSetting = "auto",
    access: AccessControl | None = None,
    metrics: Metrics | None = None,
    lifecycle: Lifecycle | None = None,
    poll_seconds: float = 2.0,
) -> FastAPI:
    """Make the application; its models live from its start-up to its shutdown.

    Args:
        registry: the artifacts to serve.
        limits: on the work of this process.
        evaluator: which one is asked for.
        access: who may use it; everybody by default.
        metrics: get what is counted and timed; its own, which nobody reads, by default.
        lifecycle: tells when the process is to stop; never, by default.
        poll_seconds: between two looks at the registry.
    """
    metrics, lifecycle = metrics or Metrics(), lifecycle or Lifecycle()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # Left last: the compiled libraries are in use until the last evaluation has ended.
        with tempfile.TemporaryDirectory(prefix="cloister-inference-") as work_dir:
            load = partial(load_model, work_dir=Path(work_dir), evaluator=evaluator)
            repository = Repository(registry, load, metrics, keep=limits.loaded_versions)
            with Evaluators(limits.threads, limits.queue, metrics) as evaluators:
                app.state.data_plane = DataPlane(repository, evaluators, limits, metrics)
                poller = Poller(repository.look, poll_seconds).start()
                log.info("serving with %d threads", limits.threads)
                try:
                    yield
                finally:
                    await asyncio.to_thread(poller.stop)

    app = _Application(
        title="Cloister inference",
        summary="Evaluates models on encrypted inputs over the Open Inference Protocol v2.",
        version=version("cloister-inference"),
        lifespan=lifespan,
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.metrics = metrics
    app.state.lifecycle = lifecycle
    app.state.held_bodies = HeldBodies()
    install_handlers(app)
    app.state.rate_limits = RateLimits()
    app.add_middleware(Authentication, access=access or AccessControl())
    for router in ROUTERS:
        # Inference counts its ciphertexts itself.
        counting = [] if router is inference.router else [Depends(count_request)]
        app.include_router(router, dependencies=counting)
    describe_access(app)
    return app
