"""A site's rows, as its ClientApp uses them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cloister_client.data.folder import data_file, read_description, read_rows
from cloister_shared.preprocessing import OutOfBounds
from cloister_shared.rows.checking import Columns, Reading, Rows, block_rows
from cloister_shared.schema import Answers, DatasetSchema
from cloister_shared.standardising import Standardisation

VALIDATION_SHARE = 0.1
VALIDATION_SEED = 0
"""The split is the same in every round and every process, so that no fitted row validates."""


@dataclass(frozen=True)
class Sample:
    """Rows of inputs, shape (n, n_inputs), and what they are to be predicted as.

    Inputs are in [0, 1], unless they are standardised.
    """

    features: npt.NDArray[np.float64]
    answers: Answers

    def standardised(self, standardisation: Standardisation) -> "Sample":
        """Return the same rows with their inputs, which are in [0, 1], standardised."""
        return Sample(standardisation.standardise(self.features), self.answers)


@dataclass(frozen=True)
class Shard:
    """The rows of one site, split into those it fits and those it validates on."""

    data: DatasetSchema
    train: Sample
    validation: Sample

    def standardised(self, standardisation: Standardisation) -> "Shard":
        """Return the same rows with their inputs standardised; takes as much memory again.

        Raises:
            CloisterError: it is of another number of inputs.
        """
        standardisation.check(self.data)
        return Shard(
            self.data,
            self.train.standardised(standardisation),
            self.validation.standardised(standardisation),
        )


def read_shard(folder: Path, out_of_bounds: OutOfBounds, columns: Columns | None = None) -> Shard:
    """Read a site's folder, and split its rows.

    Args:
        folder: holds ``schema.json`` and one file of rows: ``shard.npz`` (raw features X, labels
            y), or one that ends in .csv or .parquet.
        out_of_bounds: what happens to a value outside its declared bounds.
        columns: what the site says of its CSV or Parquet table; by default the labels are in the
            column that the schema names, and there are no columns beside those of the schema.

    Raises:
        CloisterError: a file is missing or damaged, or a value or label is not in the schema. The
            message names row and column, and never a value.
    """
    data, path = read_description(folder), data_file(folder)
    return split(data, read_rows(path, Reading(data, out_of_bounds, columns or Columns())))


def split(data: DatasetSchema, rows: Rows) -> Shard:
    """Take out the rows for validation, always the same, and close up the others where they lie.

    A site's rows may fill most of its memory, so there is never a second copy of them.

    Args:
        data: the schema.
        rows: at least two; they are the shard's from then on.
    """
    count = len(rows.answers)
    order = np.random.default_rng(VALIDATION_SEED).permutation(count)
    n_validation = max(1, round(VALIDATION_SHARE * count))
    fitted = np.ones(count, dtype=np.bool_)
    fitted[order[:n_validation]] = False
    validation = Sample(rows.features[~fitted], rows.answers[~fitted])
    end = 0
    for start in range(0, count, block_rows(data)):
        block = slice(start, start + block_rows(data))
        kept = rows.features[block][fitted[block]]
        rows.features[end : end + len(kept)] = kept
        end += len(kept)
    return Shard(data, Sample(rows.features[:end], rows.answers[fitted]), validation)
