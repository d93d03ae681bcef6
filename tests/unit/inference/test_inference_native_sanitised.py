"""The native kernels' own tests again, with the extension built under the sanitisers."""

from pathlib import Path

import sanitised

NATIVE = Path(__file__).parents[3] / "services" / "inference" / "native"
TESTS = Path(__file__).with_name("test_inference_native.py")
# Those that do without Concrete, whose libraries were not built to run under the sanitisers.
WITHOUT_CONCRETE = "definition or large or checked or short or lacks"


def test_no_kernel_leaves_its_buffers(tmp_path: Path) -> None:
    sanitised.build(tmp_path, "cloister_inference.evaluation._linear", NATIVE)
    result = sanitised.run_tests(tmp_path, TESTS, WITHOUT_CONCRETE)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert " passed" in result.stdout
