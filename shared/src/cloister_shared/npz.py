"""Named arrays in .npz files, never pickle."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloister_shared.errors import CloisterError
from cloister_shared.samples import FEATURES, LABELS


def read_numbers(
    path: Path, names: Iterable[str], optional: Iterable[str] = ()
) -> dict[str, npt.NDArray[Any]]:
    """Read arrays of integers or real numbers.

    Args:
        path: an .npz file, trusted no further than its digest.
        names: of the arrays to read; others in the file are ignored.
        optional: of arrays to read where they are there.

    Raises:
        CloisterError: the file is missing or damaged, lacks an array, or one holds something else
            than integers or real numbers.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for name in (*names, *(one for one in optional if one in archive.files)):
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


def read_labelled(path: Path, *, text: bool = False) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Read rows and their labels, as they lie at a site and at the key holder.

    Args:
        path: an .npz file with the arrays ``X`` and ``y``; others in it are ignored.
        text: whether ``X`` may hold text.

    Returns:
        Features as numbers, booleans or text, and labels of any kind but objects. Neither their
        shapes nor their values are checked.

    Raises:
        CloisterError: the file is missing or damaged, lacks an array, or ``X`` holds something
            else than numbers, or text.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            features, labels = archive[FEATURES], archive[LABELS]
    except Exception as error:  # noqa: BLE001 - numpy and zipfile name no closed set of errors
        raise CloisterError(f"{path} must be an .npz with the arrays X and y: {error}") from None
    if features.dtype.kind not in ("biufU" if text else "biuf"):
        raise CloisterError(
            f"{path} must be an .npz with the arrays X and y: X holds {features.dtype}, not "
            "numbers; text is of features that the schema declares as categories"
        )
    return features, labels
