"""The key holder side by side: every kernel of its core, and Concrete's client."""

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import artifact
import numpy as np
from rich.table import Table

from cloister_keyholder import EncryptedModel
from cloister_keyholder.encryption.client import Client
from cloister_keyholder.encryption.concrete import ConcreteClient
from cloister_keyholder.encryption.native import NativeClient
from cloister_keyholder.package.content import open_package
from cloister_lwe import kernels
from cloister_shared.artifact import CLIENT_ZIP, REFERENCE
from cloister_shared.compact import Compact
from cloister_shared.reference import Reference
from cloister_shared.registry import Version

SINGLE_QUERIES = 200
GOALS = """Goals, one core, 8 bits: encrypt <= 1 ms (VAES), <= 1.5 ms (AES-NI), decrypt <= .05 ms;
a whole request p50 <= 5 ms; 10,000 rows in under 60 s, all equal to clear-quantised."""

Result = dict[str, Any]
MedianMs = Callable[[Callable[[], object], int], float]


def measure_clients(
    published: Version, evaluate: Callable[[bytes, bool], bytes], median_ms: MedianMs
) -> Result:
    """Time key generation with encryption, and decryption, of one row on one core.

    Args:
        published: the artifact.
        evaluate: an encrypted row, in the compact form or in Concrete's.
        median_ms: of the times of a call.
    """
    circuit = open_package(published.file(CLIENT_ZIP).read_bytes()).circuit
    clients: dict[str, Client] = {
        kernel: NativeClient(circuit.specs, kernel) for kernel in kernels()
    }
    clients["concrete"] = ConcreteClient(circuit.specs)
    low, high = circuit.specs.input_range
    row = np.random.default_rng(0).integers(
        max(low, -128), min(high, 128), circuit.specs.n_features
    )
    ways: list[tuple[str, Client, Compact | None]] = [
        (name, client, None) for name, client in clients.items()
    ]
    fastest = kernels()[0]
    compact = Compact.model_validate(published.manifest.details["circuit"]["compact"])
    ways.insert(1, (f"{fastest}, compact", clients[fastest], compact))
    found: Result = {}
    for name, client, form in ways:
        key = client.new_key()
        sent = key.encrypt(row, form)
        received = evaluate(sent, form is not None)
        found[name] = {
            "encrypt_ms": median_ms(lambda: client.new_key().encrypt(row, form), 30),  # noqa: B023 - runs now
            "decrypt_ms": median_ms(lambda: key.decrypt(received, form), 30),  # noqa: B023
            "bytes_up": len(sent),
            "bytes_down": len(received),
        }
    return found


def held_out() -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return MNIST's 10,000 held-out rows, or as many drawn at random where there is no MNIST."""
    path = os.environ.get("MNIST_PATH")
    if not path:
        return np.random.default_rng(1).integers(0, 256, (10_000, 784)).astype(np.float64)
    with np.load(path) as arrays:
        rows: np.ndarray[Any, np.dtype[np.float64]] = (
            arrays["x_test"].reshape(10_000, -1).astype(np.float64)
        )
        return rows


def measure_queries(url: str, published: Version) -> Result:
    """Query a running service: one row at a time, then the whole of the held-out rows."""
    rows = held_out()
    with EncryptedModel(url, artifact.NAME) as model:
        times = []
        for row in rows[:SINGLE_QUERIES]:
            start = time.perf_counter()
            model.decision_function([row])
            times.append(1000 * (time.perf_counter() - start))
        start = time.perf_counter()
        scores = model.decision_function(rows)
        seconds = time.perf_counter() - start
        reference = Reference.read(published.file(REFERENCE))
        clear = model.dequantise(reference.integer_scores(model.quantise(rows)))
    return {
        "client": model.client,
        "p50_ms": statistics.median(times),
        "rows": len(rows),
        "seconds": seconds,
        "equal": int((scores == clear).all(axis=1).sum()),
    }


def client_table(found: Result, ckks: Result) -> Table:
    """One row's encryption and decryption, as a table."""
    table = Table(title="key holder, one row, one core (median)", title_justify="left")
    table.add_column("")
    for column in ("encrypt ms", "decrypt ms", "bytes up", "bytes down"):
        table.add_column(column, justify="right")
    for name, values in found.items():
        table.add_row(
            "Concrete's client" if name == "concrete" else f"native, {name}",
            f"{values['encrypt_ms']:.3f}",
            f"{values['decrypt_ms']:.3f}",
            f"{values['bytes_up']:,}",
            f"{values['bytes_down']:,}",
        )
    if "encrypt_ms" in ckks:
        table.add_row(
            "TenSEAL CKKS",
            f"{ckks['encrypt_ms']:.3f}",
            f"{ckks['decrypt_ms']:.3f}",
            f"{ckks['bytes_up']:,}",
            f"{ckks['bytes_down']:,}",
        )
    return table


def told_queries(found: Result) -> str:
    """Return what queries over loopback took, for people."""
    return (
        f"A whole request over loopback, {found['client']} client: p50 {found['p50_ms']:.2f} ms. "
        f"{found['rows']:,} rows: {found['seconds']:.1f} s, {found['equal']:,} equal to "
        "clear-quantised bit by bit."
    )
