"""The whole way as real processes on loopback."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DEMO = [sys.executable, "-m", "cloister_cli", "demo"]


def environment(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which the demo's temporary folder can be found."""
    return os.environ | {"TMPDIR": str(tmp_path)}


def processes_of(tmp_path: Path) -> list[str]:
    """Return the command lines of processes whose environment names this folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(tmp_path) in (entry / "environ").read_bytes().decode(errors="replace"):
                found.append((entry / "cmdline").read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return found


def run_to_its_report(tmp_path: Path, *options: str) -> tuple[dict[str, Any], str]:
    """Run a demo; return its report, and what it told."""
    report_path = tmp_path / "kept.json"
    done = subprocess.run(
        [*DEMO, "--report", str(report_path), *options],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(report_path.read_text()), done.stderr


def test_the_whole_way_on_digits(tmp_path: Path) -> None:
    report, _ = run_to_its_report(tmp_path, "--samples", "60")
    assert report["evaluated"] == 60
    assert report["reference_scores"]["clear_quantised"] >= 0.93
    assert report["encrypted_score"] >= 0.9
    assert report["agreement"] == {"samples": 60, "equal_scores": 60, "equal_predictions": 60}
    assert [path.name for path in tmp_path.iterdir()] == ["kept.json"]
    assert processes_of(tmp_path) == []


def test_the_whole_way_of_a_regression(tmp_path: Path) -> None:
    report, told = run_to_its_report(tmp_path, "--dataset", "diabetes", "--estimator", "Ridge")
    assert "Ridge takes one round" in told
    assert (report["score"], report["evaluated"]) == ("R2", 89)
    assert report["encrypted_score"] > 0.3
    assert report["agreement"] == {"samples": 89, "equal_scores": 89, "equal_predictions": 89}
    assert report["absolute_errors"]["encrypted"] < 60


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path, how: signal.Signals) -> None:
    with subprocess.Popen(
        [*DEMO, "--report", str(tmp_path / "r")],
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as demo:
        assert demo.stderr is not None
        for line in demo.stderr:
            if "submitted run" in line:
                break
        assert len(processes_of(tmp_path)) > 5
        demo.send_signal(how)
        demo.stderr.read()
    assert demo.returncode == 128 + how
    assert list(tmp_path.iterdir()) == []
    assert processes_of(tmp_path) == []


def test_a_failing_service_fails_the_demo_and_says_why(tmp_path: Path) -> None:
    not_mnist = tmp_path / "mnist.npz"
    not_mnist.write_bytes(b"not an archive")
    done = subprocess.run(
        [*DEMO, "--dataset", "mnist", "--mnist-path", str(not_mnist)],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "MNIST_PATH" in done.stderr
    assert processes_of(tmp_path) == []
