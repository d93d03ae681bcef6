"""What the service counts and times, by Prometheus' conventions for names and units.

https://prometheus.io/docs/practices/naming/
"""

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
