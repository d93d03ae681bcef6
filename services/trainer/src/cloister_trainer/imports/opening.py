"""What kind a model's file is of, by its content, and how that is read."""

from pathlib import Path

from cloister_shared.errors import CloisterError
from cloister_trainer.imports.archives import ARRAY, opened
from cloister_trainer.imports.foreign import Foreign
from cloister_trainer.imports.npz_file import read_description, read_npz
from cloister_trainer.imports.skops_file import SCHEMA, read_skops

ZIP = b"PK\x03\x04"
PICKLES = (
    *(bytes([0x80, protocol]) for protocol in range(2, 6)),
    # What joblib compresses with: zlib, gzip, bz2, xz, lzma, lz4.
    *(bytes([0x78, level]) for level in (0x01, 0x5E, 0x9C, 0xDA)),
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ\x00",
    b"\x5d\x00\x00",
    b"\x04\x22\x4d\x18",
)
"""How pickle and joblib files begin."""


def read_model(path: Path, *, card: Path | None, allow_pickle: bool) -> Foreign:
    """Read a model.

    Args:
        path: a skops file, an .npz, or a pickle or joblib file, whatever its name.
        card: describes the model of an .npz; None for the others.
        allow_pickle: whether code in the file may run.

    Raises:
        CloisterError: the file is missing, damaged, of another kind, or holds a model that is not
            taken over; or it is a pickle, and that is not allowed.
    """
    try:
        with path.open("rb") as stream:
            begin = stream.read(8)
    except OSError as error:
        raise CloisterError(f"{path} cannot be read: {error.strerror}") from None
    if begin.startswith(ZIP):
        with opened(path) as archive:
            names = archive.names
        if SCHEMA in names:
            _check_no_card(card)
            return read_skops(path)
        if any(name.endswith(ARRAY) for name in names):
            if card is None:
                raise CloisterError(
                    f"{path} holds arrays alone: say by --card what they are, in a JSON file such "
                    'as {"estimator": "LogisticRegression", "parameters": {"C": 0.1}}'
                )
            return read_npz(path, read_description(card))
    elif begin.startswith(PICKLES):
        if not allow_pickle:
            raise CloisterError(
                f"{path} is a pickle or joblib file, and unpickling runs whatever code is in it: "
                "save the model with skops.io.dump, or, if you trust who made the file, add "
                "--allow-pickle"
            )
        _check_no_card(card)
        # Nothing of it is loaded where nothing may be unpickled.
        from cloister_trainer.imports.pickles import read_pickle  # noqa: PLC0415

        return read_pickle(path)
    raise CloisterError(
        f"{path} is no model: it must be a skops file, an .npz with coef and intercept, or a "
        "pickle or joblib file"
    )


def _check_no_card(card: Path | None) -> None:
    if card is not None:
        raise CloisterError("--card is for an .npz: this file says itself what its model is")
