"""Named arrays in .npz files: plain numbers only, never pickle."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloister_shared.errors import CloisterError


def read_numbers(path: Path, names: Iterable[str]) -> dict[str, npt.NDArray[Any]]:
    """Read arrays of integers or real numbers.

    Args:
        path: an .npz file, trusted no further than its digest.
        names: of the arrays to read; others in the file are ignored.

    Raises:
        CloisterError: the file is missing or damaged, lacks an array, or one holds something else
            than integers or real numbers.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for name in names:
                arrays[name] = archive[name]
                if arrays[name].dtype.kind not in "iuf":
                    raise CloisterError(
                        f"{path}: {name} holds {arrays[name].dtype}, not integers or real numbers"
                    )
    except CloisterError:
        raise
    except Exception as error:  # noqa: BLE001 - numpy and zipfile name no closed set of errors
        raise CloisterError(f"{path} cannot be read as .npz: {error}") from None
    return arrays
