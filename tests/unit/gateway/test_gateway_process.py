"""The process that becomes HAProxy, with a script in HAProxy's place."""

import os
import subprocess
import sys
from pathlib import Path

HAPROXY = """#!/bin/sh
case $1 in
    -c) grep -q " inference 1-3 " "$3" || { echo "[ALERT] no such line" >&2; exit 1; } ;;
    *) echo "$1 $2" && test -f "$3" && echo "pid $$" ;;
esac
"""


def gateway(folder: Path, *arguments: str, **settings: str) -> "subprocess.Popen[str]":
    program = folder / "bin" / "haproxy"
    program.parent.mkdir(exist_ok=True)
    program.write_text(HAPROXY)
    program.chmod(0o755)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CLOISTER_")}
    return subprocess.Popen(
        [sys.executable, "-m", "cloister_gateway", *arguments],
        env=kept
        | {f"CLOISTER_{name.upper()}": value for name, value in settings.items()}
        | {"PATH": f"{program.parent}:{os.environ['PATH']}", "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_it_becomes_haproxy_in_the_foreground(tmp_path: Path) -> None:
    process = gateway(tmp_path, replicas_max="3")
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert output.splitlines() == ["-db -f", f"pid {process.pid}"]


def test_what_haproxy_does_not_take_is_said_and_nothing_started(tmp_path: Path) -> None:
    process = gateway(tmp_path, replicas_max="4")
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "does not take the settings:\n[ALERT] no such line" in errors
    assert "Traceback" not in errors
    assert output == ""


def test_check_only_checks_and_leaves_nothing(tmp_path: Path) -> None:
    process = gateway(tmp_path, "check", replicas_max="3")
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (0, "", "")
    assert [entry.name for entry in tmp_path.iterdir()] == ["bin"]


def test_without_haproxy_it_says_what_to_install(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "cloister_gateway"],
        env={"PATH": str(tmp_path), "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert "install Debian's package haproxy" in process.stderr
