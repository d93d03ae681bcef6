"""The core's bytes for given randomness, which are the same on every machine and for every kernel.

The randomness is SHAKE-128 of a case's name. Python can pass none in, so that the core is compiled
here as a library of its own.
"""

import ctypes
import hashlib
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from cloister_lwe import kernels

NATIVE = Path(__file__).parents[3] / "services" / "keyholder" / "lwe" / "native"
SOURCES = ["aesni.c", "lwe.c", "noise.c", "portable.c", "vaes.c"]

# Dimension, log2 of the standard deviation, width, count: SHA-256 of the key's words and bodies.
GOLDEN = {
    (450, -8, 8, 1): "6714cf2a1873876341d2a8dc1c0d020d24022f53a65b2aee70d7b696da4e84bd",
    (1128, -26, 15, 784): "32f6ed9b6da414b9496b641a43fb9ffc278bb2675faa7a345834b598887d2da5",
    (1350, -32, 19, 59): "721480aca63776cf4e95ef52aa94ff49ccec71df621dd587128db3c3e407d819",
    (1577, -37, 23, 784): "659a615a6331441b69c5c9a6bc44e7bdcc708e80ab4af5677f35cc4225c73602",
    (2049, -49, 8, 33): "afffaeec26da32792f1b9ec986b1a37c527f18873d536ce0274f66016581ecb9",
    (16384, -62, 61, 2): "7707f119701518ad49b26f70068bb03e11b1883705088838f427daac6f7c7c1f",
}


def randomness(label: str, count: int) -> bytes:
    return hashlib.shake_128(label.encode()).digest(count)


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = tmp_path_factory.mktemp("core") / "lwe.so"
    options = ["-shared", "-fPIC", "-std=c11", "-O2", "-ffp-contract=off"]
    sources = [str(NATIVE / name) for name in SOURCES]
    subprocess.run(["gcc", *options, *sources, "-o", str(library)], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.lwe_kernel_name.restype = ctypes.c_char_p
    loaded.lwe_noise_bytes.restype = loaded.lwe_kernels.restype = ctypes.c_size_t
    return loaded


def kernel_pointers(core: ctypes.CDLL) -> dict[str, ctypes.c_void_p]:
    found = (ctypes.c_void_p * 3)()
    pointers = [ctypes.c_void_p(found[at]) for at in range(core.lwe_kernels(found))]
    return {core.lwe_kernel_name(pointer).decode(): pointer for pointer in pointers}


def address(array: npt.NDArray[np.generic]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


@pytest.mark.parametrize("kernel", kernels())
@pytest.mark.parametrize("case", GOLDEN, ids=str)
def test_bytes_are_the_golden_ones(
    core: ctypes.CDLL, kernel: str, case: tuple[int, int, int, int]
) -> None:
    dimension, log2_std, width, count = case
    key = np.zeros(dimension, dtype=np.uint64)
    core.lwe_key_from_random(
        randomness(f"key {case}", -(-dimension // 8)), ctypes.c_size_t(dimension), address(key)
    )
    messages = np.arange(count, dtype=np.int64) % (1 << (width - 1)) - (1 << (width - 1)) // 2
    noise = bytearray(randomness(f"noise {case}", core.lwe_noise_bytes(ctypes.c_size_t(count))))
    bodies = np.zeros(count, dtype=np.uint64)
    core.lwe_encrypt(
        kernel_pointers(core)[kernel],
        address(key),
        ctypes.c_size_t(dimension),
        ctypes.c_uint(width),
        ctypes.c_double(2.0**log2_std),
        address(messages),
        ctypes.c_size_t(count),
        randomness(f"seeds {case}", 16 * count),
        address(np.frombuffer(noise, dtype=np.uint8)),
        address(bodies),
    )
    assert not any(noise), "used noise is wiped"
    digest = hashlib.sha256(key.tobytes() + bodies.tobytes()).hexdigest()
    assert digest == GOLDEN[case]
