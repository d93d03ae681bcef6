"""The same work by a peer: TenSEAL, ten dot products of one encrypted row under CKKS.

Runs in an environment of its own. Prints JSON: medians in milliseconds, bytes.

usage: ckks.py N_FEATURES N_OUTPUTS
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import tenseal as ts  # type: ignore[import-not-found, unused-ignore]

RUNS = 7


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the median milliseconds of some runs, and what the last returned."""
    times, result = [], None
    for _ in range(RUNS):
        start = time.perf_counter()
        result = work()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times), result


def main(n_features: int, n_outputs: int) -> None:
    """Measure and print."""
    # The largest modulus that ring dimension 4096 carries at 128 bits of security has 109 bits.
    context = ts.context(
        ts.SCHEME_TYPE.CKKS, poly_modulus_degree=4096, coeff_mod_bit_sizes=[40, 20, 40]
    )
    context.global_scale = 2**20
    context.generate_galois_keys()
    row = [(at * 37 % 256) / 255 for at in range(n_features)]
    weights = [
        [((at + j) * 53 % 256 - 128) / 128 for at in range(n_features)] for j in range(n_outputs)
    ]
    encrypt_ms, encrypted = timed(lambda: ts.ckks_vector(context, row))
    server_ms, results = timed(lambda: [encrypted.dot(column) for column in weights])
    decrypt_ms, _ = timed(lambda: [result.decrypt() for result in results])
    print(
        json.dumps(
            {
                "encrypt_ms": encrypt_ms,
                "server_ms": server_ms,
                "decrypt_ms": decrypt_ms,
                "bytes_up": len(encrypted.serialize()),
                "bytes_down": sum(len(result.serialize()) for result in results),
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
