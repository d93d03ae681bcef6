"""Extensions built under AddressSanitizer and UndefinedBehaviorSanitizer, and tests of them."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

PLUGIN = """
import hypothesis, importlib.machinery, importlib.util, sys
hypothesis.settings.register_profile("sanitised", deadline=None, max_examples=20)
hypothesis.settings.load_profile("sanitised")
name, path = {name!r}, {path!r}
loader = importlib.machinery.ExtensionFileLoader(name, path)
module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
loader.exec_module(module)
sys.modules[name] = module
"""


def build(folder: Path, name: str, native: Path) -> None:
    """Build the extension ``name`` from the sources in ``native``, and a plugin that loads it."""
    library = folder / f"{name.rpartition('.')[2]}.abi3.so"
    subprocess.run(
        [
            "gcc",
            "-shared",
            "-fPIC",
            "-std=c11",
            "-O1",
            "-g",
            "-ffp-contract=off",
            "-fsanitize=address,undefined",
            "-fno-sanitize-recover=all",
            "-DPy_LIMITED_API=0x030b0000",
            f"-I{sysconfig.get_paths()['include']}",
            *map(str, sorted(native.glob("*.c"))),
            "-o",
            str(library),
        ],
        check=True,
    )
    (folder / "use_sanitised.py").write_text(PLUGIN.format(name=name, path=str(library)))


def run_tests(folder: Path, tests: Path, selected: str) -> subprocess.CompletedProcess[str]:
    """Run those of a file's tests that are selected, in a process with the built extension."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider"),
            *("-p", "use_sanitised", "-k", selected, str(tests)),
        ],
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parent)]),
            "LD_PRELOAD": f"{_compiler_file('libasan.so')} {_compiler_file('libubsan.so')}",
            # Python itself leaves memory to the end of the process.
            "ASAN_OPTIONS": "detect_leaks=0",
            "PYTHONMALLOC": "malloc",
        },
        capture_output=True,
        text=True,
        check=False,
    )


def _compiler_file(name: str) -> str:
    return subprocess.run(
        ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()
