"""Holds one shard and runs a SuperNode for it until it is stopped."""

import threading

import httpx

from cloister_client.connection import Connection
from cloister_client.lease import leased_shard
from cloister_client.settings import Settings
from cloister_client.supernode import keep_running
from cloister_shared.service import run_service

DEALER_TIMEOUT_SECONDS = 30.0


def run_site(settings: Settings) -> None:
    """Run a SuperNode for the site's own folder, or for one leased shard after another."""
    connection = Connection(settings.superlink)
    if settings.shard_dir is not None:
        keep_running(connection, settings.shard_dir, settings.message_seconds, threading.Event())
        return
    with httpx.Client(base_url=settings.dealer_url, timeout=DEALER_TIMEOUT_SECONDS) as dealer:
        while True:
            with leased_shard(dealer, settings.data_dir, settings.lease_patience_seconds) as shard:
                keep_running(connection, shard.folder, settings.message_seconds, shard.lost)


def main() -> None:
    """Entry point of ``python -m cloister_client``."""
    run_service("client", Settings, run_site)


if __name__ == "__main__":
    main()
