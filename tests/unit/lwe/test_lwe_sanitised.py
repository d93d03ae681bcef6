"""The core's own tests again, with the extension built under the sanitisers."""

from pathlib import Path

import sanitised

NATIVE = Path(__file__).parents[3] / "services" / "keyholder" / "lwe" / "native"
TESTS = Path(__file__).with_name("test_lwe_core.py")


def test_the_core_stays_in_its_buffers(tmp_path: Path) -> None:
    sanitised.build(tmp_path, "cloister_lwe._lwe", NATIVE)
    result = sanitised.run_tests(tmp_path, TESTS, "test")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert " passed" in result.stdout
