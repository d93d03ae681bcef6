"""The native kernels' own tests again, with the extension built under the sanitisers."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[3] / "services" / "inference" / "native"
TESTS = Path(__file__).with_name("test_inference_native.py")
# Those that do without Concrete, whose libraries were not built to run under the sanitisers.
WITHOUT_CONCRETE = "definition or large or checked or short or lacks"

PLUGIN = """
import importlib.machinery, importlib.util, sys
name, path = "cloister_inference.evaluation._linear", {path!r}
loader = importlib.machinery.ExtensionFileLoader(name, path)
module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
loader.exec_module(module)
sys.modules[name] = module
"""


def compiler_file(name: str) -> str:
    return subprocess.run(
        ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def sanitised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the extension built under AddressSanitizer, and a plugin that loads it."""
    folder = tmp_path_factory.mktemp("sanitised")
    library = folder / "_linear.abi3.so"
    subprocess.run(
        [
            "gcc",
            "-shared",
            "-fPIC",
            "-std=c11",
            "-O1",
            "-g",
            "-fsanitize=address,undefined",
            "-fno-sanitize-recover=all",
            "-DPy_LIMITED_API=0x030b0000",
            f"-I{sysconfig.get_paths()['include']}",
            *map(str, sorted(NATIVE.glob("*.c"))),
            "-o",
            str(library),
        ],
        check=True,
    )
    (folder / "use_sanitised.py").write_text(PLUGIN.format(path=str(library)))
    return folder


def run_tests(sanitised: Path, selected: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider"),
            *("-p", "use_sanitised", "-k", selected, str(TESTS)),
        ],
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join([str(sanitised), os.environ.get("PYTHONPATH", "")]),
            "LD_PRELOAD": f"{compiler_file('libasan.so')} {compiler_file('libubsan.so')}",
            # Python itself leaves memory to the end of the process.
            "ASAN_OPTIONS": "detect_leaks=0",
            "PYTHONMALLOC": "malloc",
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_no_kernel_leaves_its_buffers(sanitised: Path) -> None:
    result = run_tests(sanitised, WITHOUT_CONCRETE)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert " passed" in result.stdout
