"""What the service counts and times, by Prometheus' conventions for names and units.

https://prometheus.io/docs/practices/naming/
"""

import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Upper bounds of the histograms: from a native evaluation to a tree's under load."""


class Metrics:
    """The metrics of one process, in a registry of their own.

    No label takes its values from clients: names of models and versions are those of models that
    were loaded.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = Counter(
            "cloister_requests",
            "HTTP requests answered.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "cloister_request_duration_seconds",
            "From the first byte of a request's head to the last byte of its answer.",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.received_bytes = Counter(
            "cloister_received_bytes", "Bytes of request bodies.", registry=self.registry
        )
        self.sent_bytes = Counter(
            "cloister_sent_bytes", "Bytes of answers' bodies.", registry=self.registry
        )
        self.queue_elements = Gauge(
            "cloister_queue_elements",
            "Ciphertexts that wait for a thread or are being evaluated.",
            registry=self.registry,
        )
        self.queue_limit = Gauge(
            "cloister_queue_limit_elements",
            "Ciphertexts that may wait or be evaluated at a time.",
            registry=self.registry,
        )
        self.deadline_seconds = Gauge(
            "cloister_deadline_seconds",
            "After which a request that is not evaluated is given up.",
            registry=self.registry,
        )
        self._volume_size = Gauge(
            "cloister_volume_size_bytes",
            "Size of the file system of a volume.",
            ("volume",),
            registry=self.registry,
        )
        self._volume_free = Gauge(
            "cloister_volume_free_bytes",
            "What may still be written to the file system of a volume.",
            ("volume",),
            registry=self.registry,
        )
        self.queue_seconds = Histogram(
            "cloister_queue_duration_seconds",
            "From the acceptance of a ciphertext to the start of its evaluation.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.evaluate_seconds = Histogram(
            "cloister_evaluate_duration_seconds",
            "Encrypted evaluation of one ciphertext.",
            ("model", "version", "evaluator"),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.serialise_seconds = Histogram(
            "cloister_serialise_duration_seconds",
            "Putting the answer to an inference request together.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.evaluator = Gauge(
            "cloister_model_evaluator",
            "1 for the evaluator that serves a version.",
            ("model", "version", "evaluator"),
            registry=self.registry,
        )
        self.loads = Counter(
            "cloister_model_loads",
            "Attempts to load a version.",
            ("model", "result"),
            registry=self.registry,
        )

    def watch_volume(self, volume: str, folder: Path) -> None:
        """Tell with every scrape how full the file system of a folder is.

        Args:
            volume: name of it in the metrics.
            folder: on the volume; NaN is told while there is none, or it cannot be read.
        """
        size, free = (
            partial(_file_system, folder, lambda found: found.f_blocks),
            partial(_file_system, folder, lambda found: found.f_bavail),
        )
        self._volume_size.labels(volume).set_function(size)
        self._volume_free.labels(volume).set_function(free)


def _file_system(folder: Path, blocks: Callable[[os.statvfs_result], int]) -> float:
    try:
        found = os.statvfs(folder)
    except OSError:
        # A volume that is gone must not keep the other metrics from being told.
        return math.nan
    return float(blocks(found) * found.f_frsize)
