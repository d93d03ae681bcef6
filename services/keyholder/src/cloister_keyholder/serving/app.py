"""The application, put together."""

import threading
from collections.abc import Collection
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.middleware.cors import CORSMiddleware

from cloister_keyholder.errors import (
    InvalidAnswer,
    InvalidClientPackage,
    RequestRefused,
    ServiceUnavailable,
)
from cloister_keyholder.serving.guard import PROBLEM_TYPE, BoundedJson, OwnMachine, problem
from cloister_keyholder.serving.messages import (
    Health,
    Model,
    Predictions,
    PredictRequest,
    in_order,
)
from cloister_keyholder.serving.models import OpenModels
from cloister_keyholder.serving.predicting import predict
from cloister_shared.errors import CloisterError

PREDICTIONS = 8
"""Requests for predictions at a time; others get 503, and threads are left for all else."""

Name = Annotated[str, Path(min_length=1, max_length=200)]


def create_app(models: OpenModels, service: str, origins: Collection[str]) -> FastAPI:
    """Return the application.

    Args:
        models: asked.
        service: address of their inference service, which is shown.
        origins: of the pages that may ask.
    """
    app = FastAPI(
        title="Cloister key holder",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    turns = threading.BoundedSemaphore(PREDICTIONS)

    @app.get("/health")
    async def health() -> Health:
        return Health(service=service)

    # Encryption and waiting for the service happen in threads: nobody waits for another's.
    @app.get("/v1/models/{name}")
    def describe(name: Name) -> Model:
        with models.current(name) as model:
            encrypted = model.encrypted
            return Model(
                name=encrypted.name,
                version=encrypted.description.version,
                client_digest=encrypted.description.client_digest,
                card=encrypted.card,
                evaluator=encrypted.description.evaluator,
                client=encrypted.client,
                needs_evaluation_keys=encrypted.specs.needs_evaluation_keys,
                key_state=encrypted.key_state,
            )

    @app.post("/v1/models/{name}/predict")
    def ask(name: Name, asked: PredictRequest) -> Predictions:
        if not turns.acquire(blocking=False):
            raise HTTPException(
                503, f"{PREDICTIONS} requests are under way: ask again", {"Retry-After": "1"}
            )
        try:
            with models.current(name) as model:
                encrypted = model.encrypted
                names = [feature.name for feature in encrypted.card.data.features]
                try:
                    rows = [in_order(row, names) for row in asked.rows]
                except KeyError:
                    raise CloisterError(
                        f"a row names a feature that {name} does not have: its card lists them"
                    ) from None
                return Predictions(
                    model=encrypted.name,
                    version=encrypted.description.version,
                    predictions=predict(model, rows),
                )
        finally:
            turns.release()

    @app.exception_handler(CloisterError)
    def failed(_request: Request, error: CloisterError) -> Response:
        return _problem(_status(error), str(error))

    @app.exception_handler(RequestValidationError)
    def malformed(_request: Request, error: RequestValidationError) -> Response:
        # What was given is a row: it goes into no message.
        found = error.errors()[0]
        where = ".".join(
            str(part) for part in found["loc"] if isinstance(part, int) or part in _OURS
        )
        return _problem(422, f"the request is malformed at {where or 'its body'}: {_why(found)}")

    @app.exception_handler(HTTPException)
    def refused(_request: Request, error: HTTPException) -> Response:
        return _problem(error.status_code, str(error.detail), error.headers)

    app.add_middleware(BoundedJson)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["GET", "POST"],
        allow_headers=["Content-Type"],
        expose_headers=["Retry-After"],
    )
    app.add_middleware(OwnMachine, origins=origins)
    return app


_OURS = ("body", "path", "rows", "name")
_OF_JSON = ("json_invalid", "missing", "too_long", "too_short", "extra_forbidden")


def _why(found: dict[str, Any]) -> str:
    kind = found["type"]
    return found["msg"] if kind in _OF_JSON else "it is not of the form that is expected here"


def _status(error: CloisterError) -> int:
    match error:
        case ServiceUnavailable():
            return 503
        case RequestRefused(status=404):
            return 404
        case RequestRefused() | InvalidAnswer() | InvalidClientPackage():
            return 502
        case _:
            return 422


def _problem(status: int, detail: str, headers: Any = None) -> Response:
    return Response(problem(status, detail), status, headers, media_type=PROBLEM_TYPE)
