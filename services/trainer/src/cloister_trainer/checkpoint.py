"""An unfinished training on disk, so that it can be gone on with.

One file a model, replaced after every round: an .npz with the global model, the arrays that the
strategy keeps, and the rest as JSON. Of the noise of differential privacy nothing is in it: the
noise comes from the operating system and is forgotten at once, since with it whoever reads the
file could take it off the weights again, and a round that is repeated with the same noise would
show in the difference what it hides. A round that was interrupted draws new noise.
"""

import io
import json
import logging
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from cloister_shared.card import RoundMetrics
from cloister_shared.errors import CloisterError
from cloister_shared.files import write_atomically
from cloister_shared.models import Model, from_arrays, to_arrays
from cloister_shared.schema import DatasetSchema
from cloister_shared.standardising import Standardisation

Arrays = Mapping[str, npt.NDArray[np.float64]]

_HEADER = "header"
_STATE = "strategy."

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A training after one of its rounds."""

    weights: Model
    """The global model."""
    rounds: tuple[RoundMetrics, ...]
    """Of every round so far; at least one."""
    strategy: Arrays = field(default_factory=dict)
    """What the strategy keeps from round to round."""
    privacy: dict[str, Any] | None = None
    """What differential privacy has spent, as JSON."""
    standardisation: Standardisation | None = None
    """Of the inputs that the weights are for; None: they are for inputs in [0, 1]."""


class _Header(BaseModel):
    """All of a checkpoint that is no array, and whose it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    inputs_digest: str
    published: int
    rounds: tuple[RoundMetrics, ...]
    privacy: dict[str, Any] | None
    standardisation: Standardisation | None = None


class Checkpoints:
    """The checkpoint of one training of one model."""

    def __init__(self, folder: Path, name: str, inputs_digest: str, published: int) -> None:
        """Keep it in ``folder``.

        Args:
            folder: made where it is missing.
            name: of the model.
            inputs_digest: of all that determines the training.
            published: the version that was last published from these inputs, 0 for none. A
                checkpoint from before another one was published is of a training that is finished.
        """
        self.path = folder / f"{name}.npz"
        self._inputs_digest = inputs_digest
        self._published = published

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint; the new one is on disk, whole, when this returns.

        Raises:
            OSError: the volume is full or not writable.
        """
        header = _Header(
            inputs_digest=self._inputs_digest,
            published=self._published,
            rounds=checkpoint.rounds,
            privacy=checkpoint.privacy,
            standardisation=checkpoint.standardisation,
        )
        arrays: dict[str, npt.NDArray[Any]] = {
            _HEADER: np.frombuffer(header.model_dump_json().encode(), np.uint8),
            **to_arrays(checkpoint.weights),
        }
        arrays |= {f"{_STATE}{name}": array for name, array in checkpoint.strategy.items()}
        stream = io.BytesIO()
        np.savez(stream, **arrays)
        write_atomically(self.path, stream.getvalue())

    def load(self, data: DatasetSchema, *, private: bool = False) -> Checkpoint | None:
        """Return the checkpoint, or None; the log says why where there is one of no use.

        Args:
            data: the schema that the weights must fit.
            private: whether the training is differentially private: then what was spent is in it,
                and one that is damaged is no reason to count from zero again.

        Raises:
            CloisterError: it is damaged, and the training private.
            OSError: it cannot be read.
        """
        try:
            header, checkpoint = _read(self.path, data)
        except FileNotFoundError:
            return None
        except CloisterError as error:
            if private:
                raise CloisterError(
                    f"{self.path} is damaged ({error}), and it holds what was spent of the privacy "
                    "budget: CLOISTER_RESUME=false begins with round 1, and its epsilon is beside "
                    "what was spent before"
                ) from None
            log.warning("%s is damaged (%s): beginning with round 1", self.path, error)
            return None
        if header.inputs_digest != self._inputs_digest:
            log.warning(
                "%s is of a training with other settings, %d rounds of it: beginning with round 1",
                self.path,
                len(checkpoint.rounds),
            )
            return None
        if header.published != self._published:
            log.info("%s is of a training that is published: beginning with round 1", self.path)
            return None
        return checkpoint

    def discard(self) -> None:
        """Remove the checkpoint, if there is one.

        Raises:
            OSError: the volume is not writable.
        """
        self.path.unlink(missing_ok=True)


def _read(path: Path, data: DatasetSchema) -> tuple[_Header, Checkpoint]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        header = _Header.model_validate_json(arrays.pop(_HEADER).tobytes())
        weights = from_arrays(arrays)
    except OSError:
        # The disk's or the volume's: what is there may be good.
        raise
    except (EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise CloisterError(_first_line(error)) from None
    weights.check(data)
    if not header.rounds:
        raise CloisterError("it has no round")
    if header.standardisation is not None:
        header.standardisation.check(data)
    state = {
        name.removeprefix(_STATE): array
        for name, array in arrays.items()
        if name.startswith(_STATE)
    }
    return header, Checkpoint(weights, header.rounds, state, header.privacy, header.standardisation)


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return f"its header is none: {json.dumps(error.errors()[0]['loc'])}"
    return (str(error) or type(error).__name__).splitlines()[0]
