"""The dealer's HTTP interface: lease, renew, fetch, release."""

import math
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import BaseModel

from cloister_dealer.deal import Deal
from cloister_dealer.leases import LeaseBook, NoShardFreeError
from cloister_shared.leasing import CLIENT_ID, ClientId, Lease


class LeaseRequest(BaseModel):
    """Who asks."""

    client_id: ClientId


def create_app(deal: Deal, leases: LeaseBook, shards_dir: Path, lease_seconds: float) -> FastAPI:
    """Return the application that leases the shards of ``deal``."""
    app = FastAPI(title="Cloister dealer", docs_url=None, redoc_url=None)

    @app.get("/health")
    def health() -> dict[str, int]:
        return {"shards": len(deal.shards)}

    @app.post("/lease")
    def lease(request: LeaseRequest) -> Lease:
        shard = leases.lease(request.client_id)
        return Lease(
            deal=deal.digest,
            shard=shard,
            sha256=deal.shards[shard].sha256,
            seconds=lease_seconds,
            data=deal.data,
        )

    @app.delete("/lease/{client_id}", status_code=204)
    def release(client_id: ClientId) -> None:
        leases.release(client_id)

    @app.get("/shards/{shard}")
    def fetch(shard: int, client_id: Annotated[ClientId, Header(alias=CLIENT_ID)]) -> Response:
        if not leases.holds(client_id, shard):
            raise HTTPException(403, "this shard is not leased to this client")
        return FileResponse(
            deal.shard_path(shards_dir, shard), media_type="application/octet-stream"
        )

    @app.exception_handler(NoShardFreeError)
    def no_shard_free(_request: Request, error: NoShardFreeError) -> JSONResponse:
        return JSONResponse(
            {
                "detail": f"all {len(deal.shards)} shards are leased to live clients: raise "
                "CLOISTER_SHARDS or run fewer clients"
            },
            status_code=409,
            headers={"Retry-After": str(math.ceil(error.seconds))},
        )

    return app
