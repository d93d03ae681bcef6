"""The application, put together."""

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI

from cloister_inference import openapi
from cloister_inference.data_plane import DataPlane
from cloister_inference.endpoints import ROUTERS
from cloister_inference.metrics import Metrics
from cloister_inference.model import load_model
from cloister_inference.poller import Poller
from cloister_inference.problems import install_handlers
from cloister_inference.repository import Repository
from cloister_shared.registry import Registry

log = logging.getLogger(__name__)


def create_app(
    registry: Registry,
    *,
    threads: int,
    max_batch: int,
    poll_seconds: float = 2.0,
    loaded_versions: int = 4,
    model_control: bool = True,
) -> FastAPI:
    """Make the application; its models live from its start-up to its shutdown.

    Args:
        registry: the artifacts to serve.
        threads: encrypted evaluations at a time.
        max_batch: ciphertexts in one request at most.
        poll_seconds: between two looks at the registry.
        loaded_versions: that stay loaded besides the current ones.
        model_control: whether clients may load and unload models.
    """
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # Left last: the compiled libraries are in use until the last evaluation has ended.
        with tempfile.TemporaryDirectory(prefix="cloister-inference-") as work_dir:
            load = partial(load_model, work_dir=Path(work_dir))
            repository = Repository(registry, load, metrics, keep=loaded_versions)
            evaluators = ThreadPoolExecutor(threads, thread_name_prefix="evaluate")
            app.state.data_plane = DataPlane(repository, evaluators, max_batch)
            poller = Poller(repository.look, poll_seconds).start()
            log.info("serving with %d threads", threads)
            try:
                yield
            finally:
                await asyncio.to_thread(poller.stop)
                evaluators.shutdown(cancel_futures=True)

    app = FastAPI(
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
    app.state.model_control = model_control
    app.openapi = partial(openapi.document, app)  # type: ignore[method-assign] # FastAPI's own way
    install_handlers(app)
    for router in ROUTERS:
        app.include_router(router)
    return app
