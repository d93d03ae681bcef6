"""Deals once, then leases until it is stopped."""

import uvicorn

from cloister_dealer.app import create_app
from cloister_dealer.deal import deal
from cloister_dealer.leases import LeaseBook
from cloister_dealer.settings import Settings
from cloister_dealer.telling import tell
from cloister_shared.service import run_service
from cloister_shared.tls import server_context


def serve(settings: Settings) -> None:
    """Deal the dataset and lease its shards over HTTP, or HTTPS where there is a certificate."""
    tls = None
    if settings.tls_certificate and settings.tls_key:
        tls = server_context(settings.tls_certificate, settings.tls_key)
    dealt = deal(settings)
    if settings.deal_path:
        tell(dealt, settings.deal_path, settings.deal_key_path)
    leases = LeaseBook(
        settings.shards_dir / "leases.json",
        dealt.digest,
        len(dealt.shards),
        settings.lease_seconds,
    )
    app = create_app(dealt, leases, settings.shards_dir, settings.lease_seconds)
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        ssl_context_factory=(lambda *_: tls) if tls else None,
    )


def main() -> None:
    """Entry point of ``python -m cloister_dealer``."""
    run_service("dealer", Settings, serve)


if __name__ == "__main__":
    main()
