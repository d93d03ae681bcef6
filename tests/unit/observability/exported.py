"""Names of the metrics that services export, and those that a query asks for."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from cloister_inference.observability.metrics import Metrics as InferenceMetrics
from cloister_trainer.progress import Metrics as TrainerMetrics

PROMETHEUS_OWN = frozenset({"up", "ALERTS"})
"""What Prometheus makes itself."""

_SERIES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
_OPERATORS = {"and", "or", "unless", "offset", "bool"}


def python_series() -> set[str]:
    """Series of inference and trainer, those included that nothing has been counted in."""
    trainer = CollectorRegistry()
    TrainerMetrics(trainer)
    return {
        f"{family.name}{suffix}"
        for registry in (InferenceMetrics().registry, trainer)
        for family in registry.collect()
        for suffix in _SERIES[family.type]
    }


def asked_for(query: str) -> set[str]:
    """Series that a PromQL query names."""
    bare = re.sub(r'"[^"]*"', "", query)
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]", " ", bare)
    bare = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", " ", bare)
    names = re.findall(r"(?<![\w.:])[A-Za-z_:][\w:]*(?![\w:]|\s*\()", bare)
    return set(names) - _OPERATORS


def proxies_asked_for(query: str) -> set[tuple[str, str]]:
    """HAProxy's series that a query names, each with every proxy that it selects."""
    found = set()
    for name, labels in re.findall(r"(haproxy_\w+)\{([^}]*)\}", query):
        (selected,) = re.findall(r'proxy=~?"([^"]*)"', labels)
        found |= {(name, proxy) for proxy in selected.split("|")}
    return found


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextmanager
def running(
    module: str, settings: Mapping[str, object], output: IO[bytes] | None = None
) -> Iterator[int]:
    """Run a service that becomes HAProxy, and give the port of its metrics.

    Args:
        module: of the service.
        settings: of it, names without prefix.
        output: gets its log lines.
    """
    port = free_port()
    ports = {"port": free_port(), "metrics_port": port}
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CLOISTER_")}
    stated = {f"CLOISTER_{k.upper()}": str(v) for k, v in {**ports, **settings}.items()}
    with subprocess.Popen(
        [sys.executable, "-m", module], env=kept | stated, stdout=output, stderr=subprocess.DEVNULL
    ) as process:
        try:
            while not _answers(port):
                assert process.poll() is None, f"{module} ended"
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()
            process.wait()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).is_success
    except httpx.TransportError:
        return False


def haproxy_series(port: int) -> set[tuple[str, str]]:
    """Series that HAProxy exports, each with its proxy."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
    return {
        (sample.name, sample.labels["proxy"])
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "proxy" in sample.labels
    }


def provisioned(folder: Path) -> dict[str, object]:
    """Make a federation's certificates, and return the settings of the fleet's address."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CLOISTER_")}
    subprocess.run(
        [sys.executable, "-m", "cloister_provision"],
        env=kept | {"CLOISTER_FEDERATION_DIR": str(folder)},
        check=True,
        capture_output=True,
    )
    tls = folder / "fleet-tls"
    return {"fleet_tls_pem": tls / "tls.pem", "ca_path": tls / "ca.crt"}
