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

from cloister_inference.data_plane import DataPlane
from cloister_inference.endpoints import ROUTERS
from cloister_inference.evaluation_keys import EvaluationKeys, KeySettings
from cloister_inference.model import load_model
from cloister_inference.problems import install_handlers
from cloister_inference.repository import Repository
from cloister_shared.registry import Registry

log = logging.getLogger(__name__)


def create_app(
    registry: Registry, *, threads: int, max_batch: int, keys: KeySettings | None = None
) -> FastAPI:
    """Make the application; its models live from its start-up to its shutdown.

    Args:
        registry: the artifacts to serve.
        threads: encrypted evaluations at a time.
        max_batch: ciphertexts in one request at most.
        keys: where evaluation keys are kept and how many; ``KeySettings()`` by default.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # Left last: the compiled libraries are in use until the last evaluation has ended.
        with tempfile.TemporaryDirectory(prefix="cloister-inference-") as work_dir:
            repository = Repository(registry, partial(load_model, work_dir=Path(work_dir)))
            evaluators = ThreadPoolExecutor(threads, thread_name_prefix="evaluate")
            app.state.data_plane = DataPlane(repository, evaluators, max_batch)
            app.state.evaluation_keys = EvaluationKeys(repository, keys or KeySettings())
            sweeping = asyncio.create_task(app.state.evaluation_keys.sweep())
            log.info("serving with %d threads", threads)
            try:
                yield
            finally:
                sweeping.cancel()
                evaluators.shutdown(cancel_futures=True)

    app = FastAPI(
        title="Cloister inference",
        summary="Evaluates models on encrypted inputs over the Open Inference Protocol v2.",
        version=version("cloister-inference"),
        lifespan=lifespan,
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    install_handlers(app)
    for router in ROUTERS:
        app.include_router(router)
    return app
