"""Whether the time of the key holder's core depends on a secret, seen by tools in a container."""

import subprocess
from pathlib import Path

from stack import ROOT

IMAGE = "cloister-constant-time"
CORE = ROOT / "services" / "keyholder" / "lwe" / "native"
CHECK = Path(__file__).with_name("constant_time")


def docker(*arguments: str, seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, check=False, timeout=seconds
    )


def test_no_branch_address_or_slow_instruction_depends_on_a_secret() -> None:
    built = docker(
        *("build", "--quiet", "--target", "constant-time", "--tag", IMAGE),
        *("--file", str(ROOT / "docker" / "Dockerfile"), str(ROOT)),
        seconds=1200,
    )
    assert built.returncode == 0, built.stderr
    checked = docker(
        *("run", "--rm", "--network", "none"),
        *("--volume", f"{CORE}:/native:ro", "--volume", f"{CHECK}:/check:ro"),
        *(IMAGE, "/check/check.sh"),
        seconds=600,
    )
    print(checked.stdout)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.count("no branch or address depends on a secret") == 2
    assert "leak: seen" in checked.stdout
