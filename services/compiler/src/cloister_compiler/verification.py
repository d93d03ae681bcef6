"""Nothing is published that was not seen to be right under real encryption."""

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cloister_compiler.runtime import FHEModelClient, FHEModelServer
from cloister_shared.artifact import Circuit
from cloister_shared.errors import CloisterError
from cloister_shared.reference import Reference

Floats = npt.NDArray[np.float64]

log = logging.getLogger(__name__)


def check_range(reference: Reference, circuit: Circuit) -> None:
    """Prove that no input can overflow the circuit: its exact score bounds fit its width.

    Raises:
        CloisterError: some quantised input reaches a score that wraps around.
    """
    lowest, highest = reference.integer_bounds()
    low = -(1 << (circuit.width - 1)) if circuit.signed else 0
    high = low + (1 << circuit.width) - 1
    if lowest.min() < low or highest.max() > high:
        raise CloisterError(
            f"scores reach [{lowest.min()}, {highest.max()}], but the circuit's {circuit.width} "
            f"bits hold [{low}, {high}]: calibration missed the extremes, and encrypted results "
            "would be wrong: not published"
        )


def check_execution(folder: Path, reference: Reference, rows: Floats) -> None:
    """Run rows through real encryption, with the files to be published, and compare each result.

    Args:
        folder: holds client.zip and server.zip.
        reference: what each result must equal, bit by bit.
        rows: in [0, 1] of all features, shape (n, n_features).

    Raises:
        CloisterError: encrypted execution fails, or a decrypted result differs from the clear one;
            the message counts them.
    """
    client, server = FHEModelClient(str(folder)), FHEModelServer(str(folder))
    client.generate_private_and_evaluation_keys()
    evaluation_keys = client.get_serialized_evaluation_keys()
    expected = reference.integer_scores(reference.quantise(rows))
    wrong = 0
    for index, row in enumerate(rows[:, reference.features]):
        try:
            result = server.run(client.quantize_encrypt_serialize(row[None, :]), evaluation_keys)
            decrypted = np.asarray(client.deserialize_decrypt(result)).ravel()
        except (RuntimeError, ValueError) as error:
            raise CloisterError(f"encrypted execution of input {index} failed: {error}") from error
        wrong += not np.array_equal(decrypted, expected[index])
        if (index + 1) % 10 == 0 or index + 1 == len(rows):
            log.info("ran %d of %d inputs under real encryption", index + 1, len(rows))
    if wrong:
        raise CloisterError(
            f"{wrong} of {len(rows)} encrypted results differ from the clear ones: not published"
        )
