"""The core in WebAssembly: given the same randomness, the native core's bytes, in both builds."""

import base64
import ctypes
import math
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from javascript import JavaScript

CORE = Path(__file__).parents[3] / "services" / "keyholder" / "lwe" / "native"
DIMENSION, STD, WIDTH, OUTPUTS = 1350, 2.3e-10, 19, 3
BUILDS = ["lwe.simd.wasm", "lwe.wasm"]

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The same sources, compiled for this processor."""
    library = tmp_path_factory.mktemp("native") / "core.so"
    sources = [CORE / f"{name}.c" for name in ("wasm", "lwe", "noise", "portable", "aesni", "vaes")]
    flags = ["-shared", "-fPIC", "-std=c11", "-O3", "-ffp-contract=off", "-Wno-attributes"]
    subprocess.run(["gcc", *flags, *sources, "-o", library], check=True)
    return ctypes.CDLL(str(library))


def place(array: Array) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def sealed_natively(native: ctypes.CDLL, random: bytes, messages: list[int]) -> tuple[bytes, Array]:
    """Seeded ciphertexts and the key, of the randomness that JavaScript is given."""
    count, key_bytes = len(messages), math.ceil(DIMENSION / 8)
    key_random = np.frombuffer(random[:key_bytes], np.uint8).copy()
    seeds = np.frombuffer(random[key_bytes : key_bytes + 16 * count], np.uint8).copy()
    noise = np.frombuffer(random[key_bytes + 16 * count :], np.uint8).copy()
    key, bodies = np.zeros(DIMENSION, np.uint64), np.zeros(count, np.uint64)
    integers, seeded = np.array(messages, np.int64), np.zeros(24 * count, np.uint8)
    size = ctypes.c_size_t
    native.wasm_make_key(place(key_random), size(DIMENSION), place(key))
    native.wasm_encrypt(
        place(key),
        size(DIMENSION),
        ctypes.c_uint(WIDTH),
        ctypes.c_double(STD),
        place(integers),
        size(count),
        place(seeds),
        place(noise),
        place(bodies),
        place(seeded),
    )
    return seeded.tobytes(), key


def result_of(key: Array, scores: list[int], rng: np.random.Generator) -> bytes:
    """Ciphertexts of scores under a key, with a little noise."""
    masks = rng.integers(0, 1 << 64, (len(scores), DIMENSION), dtype=np.uint64)
    phases = (np.array(scores, np.int64).view(np.uint64) << np.uint64(63 - WIDTH)) + np.uint64(
        12345
    )
    bodies = (masks & key).sum(axis=1, dtype=np.uint64) + phases
    return np.hstack([masks, bodies[:, None]]).tobytes()


def encryption(count: int) -> dict[str, Any]:
    return {
        "dimension": DIMENSION,
        "std": STD,
        "inputWidth": WIDTH,
        "nInputs": count,
        "outputWidth": WIDTH,
        "outputSigned": True,
        "nOutputs": OUTPUTS,
    }


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("count", [1, 2, 59])
def test_both_builds_encrypt_and_decrypt_as_the_native_core(
    javascript: JavaScript, native: ctypes.CDLL, build: str, count: int
) -> None:
    rng = np.random.default_rng(count)
    messages = rng.integers(-128, 128, count).tolist()
    random = rng.bytes(math.ceil(DIMENSION / 8) + 16 * count + 8 * (count + count % 2))
    expected, key = sealed_natively(native, random, messages)
    scores = [-(1 << 18), 0, (1 << 18) - 1]
    found = javascript(
        "seal",
        build=build,
        random=random,
        encryption=encryption(count),
        messages=messages,
        words=result_of(key, scores, rng),
    )
    assert base64.b64decode(found["ciphertexts"]) == expected
    assert found["scores"] == scores
    assert found["again"] == "KeyUnusable"


@pytest.mark.parametrize("ends", ["opened", "dropped"])
def test_nothing_of_a_query_stays_in_its_memory(javascript: JavaScript, ends: str) -> None:
    words = os.urandom(OUTPUTS * (DIMENSION + 1) * 8) if ends == "opened" else None
    found = javascript("memory", encryption=encryption(2), messages=[5, -3], words=words)
    assert found == {"before": True, "after": False}


@pytest.mark.parametrize(
    ("dimension", "distance", "safe"),
    [(1577, 0.0, True), (1577, -1e-3, False), (450, 0.1, True), (449, 10.0, False)],
)
def test_the_security_curve_is_concretes(
    javascript: JavaScript, dimension: int, distance: float, safe: bool
) -> None:
    std = 2 ** (-0.025696778711484593 * dimension + 2.675931372549016 + distance)
    assert javascript("safe", parameters=[[dimension, std]]) == [safe]


@pytest.fixture(scope="module", params=BUILDS)
def code(request: pytest.FixtureRequest) -> bytes:
    path: Path = CORE.parents[1] / "web" / "dist" / request.param
    return path.read_bytes()


def test_a_module_imports_nothing(code: bytes) -> None:
    # Sections follow a head of 8 bytes; one of id 2 would be imports.
    sections, at = [], 8
    while at < len(code):
        sections.append(code[at])
        at, size, shift = at + 1, 0, 0
        while True:
            size |= (code[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if not code[at - 1] & 0x80:
                break
        at += size
    assert 1 in sections
    assert 2 not in sections
    assert len(code) < 16_384
