"""Measures encrypted inference side by side: floor, kernels, Concrete, service, baseline, peer.

Everything runs on this machine, one after the other, on the same artifact and the same encrypted
inputs; what counts are the ratios within one run. Writes bench.json and bench.png.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import artifact
import httpx
import keyholder
import load
import timing
from rich.console import Console
from rich.table import Table

from cloister_inference.evaluation.native import NativeCircuit, kernels
from cloister_inference.forms import Form, Forms
from cloister_inference.serving.model import load_model
from cloister_shared.concrete import contain_concrete
from cloister_shared.linear import LinearCircuit
from cloister_shared.registry import Version

contain_concrete()

HERE = Path(__file__).parent
N_PAYLOADS = 16
CONNECTIONS = (1, 4, 16)
START_SECONDS = 120
WIDTH = 100
GOALS = """Goals: native <= 1.3 x floor (AVX-512), <= 5 x (AVX2); service >= 25 x baseline in
requests/s at 4 connections; p99 <= 3 x p50 at 4 connections."""

Result = dict[str, Any]


def median_ms(work: Callable[[], object], runs: int) -> float:
    """Median milliseconds of a call, after one to warm up."""
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def measure_floor(linear: LinearCircuit, folder: Path) -> Result:
    """Compile and run floor.c for a circuit's sizes."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        raise SystemExit("the floor is a C program: install a C compiler, or name one in CC")
    program = folder / "floor"
    subprocess.run(
        [compiler, "-O3", "-std=gnu11", str(HERE / "floor.c"), "-o", str(program)], check=True
    )
    sizes = (*linear.weights.shape, linear.lwe_dimension)
    printed = subprocess.run(
        [str(program), *map(str, sizes)], capture_output=True, text=True, check=True
    ).stdout
    found: Result = json.loads(printed)
    return found


def measure_evaluators(published: Version, payloads: Sequence[bytes], folder: Path) -> Result:
    """Time every kernel and Concrete's run, in this process, on one core."""
    model = load_model(published, folder, "concrete")
    linear = LinearCircuit.read(published.file("linear.npz"))
    offset = model.details.circuit.input_data_offset
    expected = model.circuit.evaluate(payloads[0])
    found: Result = {"concrete": median_ms(lambda: model.circuit.evaluate(payloads[0]), 15)}
    for kernel in kernels():
        native = NativeCircuit(linear, offset, kernel)
        if native.evaluate(payloads[0]) not in expected:
            raise SystemExit(f"the kernel {kernel} differs from Concrete's run")
        found[kernel] = median_ms(lambda: native.evaluate(payloads[0]), 15)  # noqa: B023 - runs now
    return found


def free_port() -> int:
    """Return a TCP port that nothing listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def serving(command: Sequence[str], health: str, environment: dict[str, str]) -> Iterator[None]:
    """Run a server until the block ends; begin once ``health`` answers anything but an error."""
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            give_up = time.monotonic() + START_SECONDS
            while True:
                try:
                    if httpx.get(health).status_code < 500:
                        break
                except httpx.TransportError:
                    pass
                if time.monotonic() > give_up or process.poll() is not None:
                    raise SystemExit(f"{' '.join(command)} does not serve")
                time.sleep(0.2)
            yield
        finally:
            process.terminate()


def measure_load(
    port: int, requests: Sequence[bytes], counts: Sequence[int], seconds: float
) -> Result:
    """Put a server under load from so many connections at a time."""
    load.run(port, requests, 1, min(seconds, 1))
    found: Result = {}
    for connections in counts:
        run = load.run(port, requests, connections, seconds)
        found[str(connections)] = {
            "requests": run.requests,
            "per_second": run.per_second,
            "p50_ms": run.percentile(50),
            "p99_ms": run.percentile(99),
        }
    return found


@contextmanager
def service(root: Path, evaluator: str) -> Iterator[int]:
    """Run this project's service as a process of its own; give its port."""
    port = free_port()
    environment = os.environ | {
        "CLOISTER_ARTIFACTS_DIR": str(root / "artifacts"),
        "CLOISTER_PORT": str(port),
        "CLOISTER_METRICS_PORT": "0",
        "CLOISTER_EVALUATOR": evaluator,
    }
    health = f"http://127.0.0.1:{port}/v2/models/{artifact.NAME}/ready"
    with serving([sys.executable, "-m", "cloister_inference"], health, environment):
        yield port


def measure_service(
    root: Path, published: Version, payloads: Sequence[bytes], seconds: float, evaluator: str
) -> Result:
    """Measure this project's service under load."""
    headers = {
        "Content-Type": "application/octet-stream",
        "Cloister-Client-Digest": published.manifest.details["client_digest"],
    }
    path = f"/v2/models/{artifact.NAME}/infer"
    requests = [load.post(path, payload, headers) for payload in payloads]
    with service(root, evaluator) as port:
        return measure_load(port, requests, CONNECTIONS, seconds)


def measure_keyholder(root: Path, published: Version, folder: Path) -> Result:
    """Measure the key holder alone, and together with the service."""
    model = load_model(published, folder, "auto")

    def evaluate(payload: bytes, is_compact: bool) -> bytes:
        form = Form.COMPACT if is_compact else Form.CONCRETE
        return model.evaluate(payload, Forms(form, form))

    clients = keyholder.measure_clients(published, evaluate, median_ms)
    with service(root, "auto") as port:
        return {
            "clients": clients,
            "queries": keyholder.measure_queries(f"http://127.0.0.1:{port}", published),
            "leaks": timing.measure_leaks(),
        }


def measure_baseline(published: Version, payloads: Sequence[bytes], seconds: float) -> Result:
    """Measure what a team would write first, with OpenMP as it comes."""
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    requests = [load.post("/predict", payload, {}) for payload in payloads]
    command = [sys.executable, str(HERE / "baseline.py"), str(published.path), str(port)]
    with serving(command, f"http://127.0.0.1:{port}/openapi.json", environment):
        return measure_load(port, requests, CONNECTIONS, seconds)


def measure_ckks(linear: LinearCircuit, folder: Path) -> Result:
    """Measure TenSEAL in an environment of its own; say why where it does not install."""
    environment = folder / "ckks"
    python = environment / "bin" / "python"
    try:
        for command in (
            [sys.executable, "-m", "venv", str(environment)],
            [str(python), "-m", "pip", "install", "--quiet", "tenseal", "numpy"],
        ):
            subprocess.run(command, capture_output=True, check=True)
        printed = subprocess.run(
            [str(python), str(HERE / "ckks.py"), *map(str, linear.weights.shape)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except subprocess.CalledProcessError as error:
        return {"not_measured": f"{error.cmd[-2:]} failed with {error.returncode}"}
    found: Result = json.loads(printed)
    return found


def encrypted_rows(published: Version) -> list[bytes]:
    """Encrypt rows with stock Concrete ML, each under the same key: the server cannot tell."""
    from concrete.ml.deployment import FHEModelClient  # noqa: PLC0415 - takes seconds

    client = FHEModelClient(str(published.path))
    client.generate_private_and_evaluation_keys()
    n_features = published.manifest.details["circuit"]["n_features"]
    rows = artifact.rows(N_PAYLOADS)[:, :n_features]
    return [client.quantize_encrypt_serialize(row[None, :]) for row in rows]


def evaluation_table(found: Result) -> Table:
    """One prediction on one core, as a table."""
    floor = found["floor_ms"]
    table = Table(title="one encrypted prediction, one core (median)", title_justify="left")
    for column, justify in (("", "left"), ("ms", "right"), ("x floor", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    table.add_row("floor: the arithmetic alone", f"{floor:.2f}", "1.0")
    for name, milliseconds in sorted(found["evaluators"].items(), key=lambda item: item[1]):
        label = "Concrete's run" if name == "concrete" else f"native, {name}"
        table.add_row(label, f"{milliseconds:.2f}", f"{milliseconds / floor:.1f}")
    if "server_ms" in found["ckks"]:
        milliseconds = found["ckks"]["server_ms"]
        table.add_row(
            "TenSEAL CKKS, 10 dot products", f"{milliseconds:.2f}", f"{milliseconds / floor:.1f}"
        )
    return table


def load_table(found: Result) -> Table:
    """Requests over HTTP, as a table."""
    base = found["baseline"]["4"]["per_second"]
    table = Table(
        title="over HTTP, one process; x baseline: of FHEModelServer at 4 connections",
        title_justify="left",
    )
    table.add_column("")
    for column in ("connections", "requests/s", "x baseline", "p50 ms", "p99 ms", "p99/p50"):
        table.add_column(column, justify="right")
    for name, label in (
        ("service", "Cloister"),
        ("service_concrete", "the same, Concrete's run"),
        ("baseline", "FHEModelServer and a lock"),
    ):
        for connections, values in found[name].items():
            table.add_row(
                label,
                connections,
                f"{values['per_second']:.1f}",
                f"{values['per_second'] / base:.1f}",
                f"{values['p50_ms']:.1f}",
                f"{values['p99_ms']:.1f}",
                f"{values['p99_ms'] / values['p50_ms']:.1f}",
            )
    return table


def plot(found: Result, path: Path) -> None:
    """Draw the times of one prediction and the requests a second."""
    import matplotlib as mpl  # noqa: PLC0415 - takes seconds

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    times = {"floor": found["floor_ms"]} | found["evaluators"]
    if "server_ms" in found["ckks"]:
        times["TenSEAL CKKS"] = found["ckks"]["server_ms"]
    names = sorted(times, key=lambda name: times[name], reverse=True)
    bars = left.barh(names, [times[name] for name in names])
    left.bar_label(bars, fmt="%.2f", padding=3)
    left.set(xscale="log", xlabel="ms, one core", title="one encrypted MNIST prediction")
    left.margins(x=0.2)
    for name, label in (("service", "Cloister"), ("baseline", "baseline")):
        counts = found[name]
        right.plot(list(counts), [c["per_second"] for c in counts.values()], "o-", label=label)
    right.set(yscale="log", xlabel="connections", ylabel="requests/s", title="over HTTP")
    right.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="folder to write to")
    parser.add_argument("--seconds", type=float, default=10, help="of load at each point")
    arguments = parser.parse_args()
    console = Console(width=WIDTH)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cloister-bench-") as work:
        root = Path(work)
        console.print("compiling the artifact and encrypting inputs")
        published = artifact.publish(root)
        payloads = encrypted_rows(published)
        linear = LinearCircuit.read(published.file("linear.npz"))
        found: Result = {
            "circuit": published.manifest.details["circuit"],
            "floor": measure_floor(linear, root),
            "evaluators": measure_evaluators(published, payloads, root),
        }
        found["keyholder"] = measure_keyholder(root, published, root)
        found["floor_ms"] = min(each["both"] for each in found["floor"].values())
        console.print("putting the service under load")
        for name, evaluator in (("service", "auto"), ("service_concrete", "concrete")):
            found[name] = measure_service(root, published, payloads, arguments.seconds, evaluator)
        console.print("putting the baseline under load")
        found["baseline"] = measure_baseline(published, payloads, arguments.seconds)
        found["ckks"] = measure_ckks(linear, root)
    console.print(evaluation_table(found), load_table(found), GOALS)
    console.print(
        keyholder.client_table(found["keyholder"]["clients"], found["ckks"]),
        keyholder.told_queries(found["keyholder"]["queries"]),
        keyholder.GOALS,
        timing.leak_table(found["keyholder"]["leaks"]),
    )
    if "not_measured" in found["ckks"]:
        console.print(f"TenSEAL was not measured: {found['ckks']['not_measured']}")
    (arguments.out / "bench.json").write_text(json.dumps(found, indent=2) + "\n")
    plot(found, arguments.out / "bench.png")
    console.print(f"wrote {arguments.out}/bench.json and bench.png")


if __name__ == "__main__":
    main()
