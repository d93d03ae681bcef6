"""The soak against hostile payloads, in short."""

import json
import subprocess
import sys
from pathlib import Path

from test_inference_process import Process

SOAK = Path(__file__).parents[2] / "benchmarks" / "hostile.py"


def soak(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SOAK), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_the_service_stands(artifacts: Path, tmp_path: Path) -> None:
    process = Process(artifacts, tmp_path)
    try:
        pid = str(process.popen.pid)
        done = soak("--url", process.url, "--requests", "600", "--pid", pid)
        assert process.popen.poll() is None
        assert soak("--url", process.url, "--model", "unknown").returncode == 1
    finally:
        process.end()
    report = json.loads(done.stdout)
    assert (done.returncode, report["wrong"]) == (0, []), done.stdout + done.stderr
    assert report["stood"]
    assert report["timeouts"] == report["server_errors"] == 0
    assert report["valid"] == {"right": 30}
    # Every kind was sent, and was not all refused for the same reason.
    assert len(report["by_attack"]) > 35
    assert {"200", "400", "404", "405", "409", "411", "413", "415"} <= set(report["by_status"])
    assert report["rss_bytes"]["after"] > 0
