"""The command itself."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

DEMO = [sys.executable, "-m", "cloister_cli", "demo"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """With a folder for temporary files that nobody else uses."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    return os.environ | {"TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}


def run(environment: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DEMO, *options], env=environment, capture_output=True, text=True, check=False
    )


def test_a_dataset_that_is_not_known_is_a_clear_error(
    environment: dict[str, str], tmp_path: Path
) -> None:
    # The dealer would refuse stray settings of the shell; it is the dataset that it refuses.
    stray = {"CLOISTER_SHARDS": "none", "CLOISTER_PORT": "none"}
    result = run(environment | stray, "--dataset", "nonsense")
    assert result.returncode == 1
    message = result.stderr[result.stderr.index("the demo failed") :]
    assert "dealer ended with code 1" in message
    assert "CLOISTER_DATASET: " in message
    assert "'breast_cancer'" in message
    assert "CLOISTER_SHARDS: " not in message
    assert "Traceback" not in result.stderr
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize(
    "options", [("--clients", "0"), ("--samples", "-1"), ("--mnist-path", "/nowhere.npz")]
)
def test_options_that_make_no_sense_are_refused(
    environment: dict[str, str], options: tuple[str, str]
) -> None:
    result = run(environment, *options)
    assert result.returncode == 2
    assert options[0] in result.stderr


FAKE = """
import os, pathlib, signal
folder = pathlib.Path(__file__).parent
(folder / f"pid-{os.getpid()}").touch()
signal.pause()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_all_services(
    environment: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    for service in ("dealer", "server"):
        (tmp_path / f"cloister_{service}.py").write_text(FAKE)
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(DEMO, env=environment, stderr=subprocess.PIPE) as demo:
        deadline = time.monotonic() + 60
        while len(pids := [int(path.name[4:]) for path in tmp_path.glob("pid-*")]) < 2:
            assert time.monotonic() < deadline, "the services did not start"
            time.sleep(0.02)
        demo.send_signal(number)
        demo.communicate()
    assert demo.returncode == 128 + number
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_hangup_that_is_ignored_stays_ignored(
    environment: dict[str, str], tmp_path: Path
) -> None:
    code = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "import cloister_cli.__main__ as cli\n"
        "cli.run_demo = lambda *_, **__: signal.raise_signal(signal.SIGHUP)\n"
        "cli.demo()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
