"""Whether the core's time tells a secret, by statistics of many runs.

After O. Reparaz, J. Balasch, I. Verbauwhede, "Dude, is my code constant time?",
https://eprint.iacr.org/2016/1123: runs with one secret and runs with random ones, in random order,
and Welch's t of their times. Beyond 4.5 it would be evidence of a leak; below, there is none.
"""

import math
import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.table import Table

from cloister_lwe import Key, Scheme, kernels

RUNS = 20_000
WARM_UP = 500
KEPT = 0.9
"""Share of the runs that counts, the fastest: the others were interrupted."""
DIMENSION, WIDTH, COUNT = 1577, 23, 8

Floats = np.ndarray[Any, np.dtype[np.float64]]


def welch(fixed: Floats, drawn: Floats) -> float:
    """Return Welch's t of two samples."""
    error = math.sqrt(fixed.var(ddof=1) / len(fixed) + drawn.var(ddof=1) / len(drawn))
    return float((fixed.mean() - drawn.mean()) / error)


def measure(
    work: Callable[[Any], object], fix: Callable[[], Any], draw: Callable[[], Any]
) -> float:
    """Return Welch's t of the times of ``work`` with a fixed secret and with drawn ones.

    Args:
        work: to be timed, with a secret.
        fix: makes the same secret anew, so that it lies in no other kind of memory than others.
        draw: makes a random one.
    """
    times: tuple[list[int], list[int]] = ([], [])
    for run in range(RUNS + WARM_UP):
        kind = random.getrandbits(1)
        # Both are made, in whichever order, so that nothing but the secret differs.
        makers = [draw, fix] if random.getrandbits(1) else [fix, draw]
        made = {make: make() for make in makers}
        secret = made[draw if kind else fix]
        start = time.perf_counter_ns()
        work(secret)
        took = time.perf_counter_ns() - start
        if run >= WARM_UP:
            times[kind].append(took)
    limit = np.quantile(times[0] + times[1], KEPT)
    first, second = (np.array(one, dtype=np.float64) for one in times)
    return welch(first[first <= limit], second[second <= limit])


def measure_leaks() -> dict[str, dict[str, float]]:
    """Return Welch's t for every kernel and secret."""
    found: dict[str, dict[str, float]] = {}
    rng = np.random.default_rng()
    result = rng.bytes(8 * (DIMENSION + 1))
    zeros = np.zeros(COUNT, dtype=np.int64)

    def no_bits() -> Key:
        return Key.from_bits(rng.integers(0, 1, DIMENSION, dtype=np.uint8))

    def some_bits() -> Key:
        return Key.from_bits(rng.integers(0, 2, DIMENSION, dtype=np.uint8))

    for kernel in kernels():
        scheme = Scheme(DIMENSION, 2.0**-37, WIDTH, WIDTH, output_is_signed=True, kernel=kernel)
        key = scheme.new_key()

        def encrypt(secret: Key, scheme: Scheme = scheme) -> None:
            scheme.encrypt(secret, zeros)

        def encrypt_message(secret: Any, scheme: Scheme = scheme, key: Key = key) -> None:
            scheme.encrypt(key, secret)

        def decrypt(secret: Key, scheme: Scheme = scheme) -> None:
            scheme.decrypt(secret, result, 1)

        found[kernel] = {
            "key, encrypting": measure(encrypt, no_bits, some_bits),
            "message": measure(
                encrypt_message,
                lambda: rng.integers(0, 1, COUNT),
                lambda: rng.integers(-(2**20), 2**20, COUNT),
            ),
            "key, decrypting": measure(decrypt, no_bits, some_bits),
        }
    return found


def leak_table(found: dict[str, dict[str, float]]) -> Table:
    """Welch's t, as a table."""
    table = Table(
        title=f"time against secrets, {RUNS:,} runs: Welch's t (beyond 4.5: a leak)",
        title_justify="left",
    )
    table.add_column("")
    for secret in next(iter(found.values())):
        table.add_column(secret, justify="right")
    for kernel, values in found.items():
        table.add_row(kernel, *(f"{value:+.1f}" for value in values.values()))
    return table
