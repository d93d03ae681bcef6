"""Settings of a local training."""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from cloister_shared.datasets import DatasetName, chosen_schema
from cloister_shared.preprocessing import OutOfBounds
from cloister_shared.rows.checking import Columns, Reading
from cloister_shared.schema import DatasetSchema
from cloister_shared.service import ServiceSettings

Grid = dict[str, Annotated[list[Any], Field(min_length=1)]]


def _grids(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


class Settings(ServiceSettings):
    """Environment variables with the prefix CLOISTER_."""

    data_path: Path = Path("data.csv")
    """CSV, Parquet or .npz file with the rows and their labels or targets."""
    label_column: str | None = None
    """Column of a CSV or Parquet file that holds the labels; by default the schema's."""
    ignored_columns: tuple[str, ...] = ()
    """Columns of a CSV or Parquet file that are not read, as a JSON list of names."""
    dataset: DatasetName = "digits"
    """Schema of the rows, of those known by name."""
    schema_path: Path | None = None
    """JSON file with another schema of the rows, in the place of one known by name."""
    model: str | None = None
    """Name under which the model is published; the dataset's by default."""
    models_dir: Path = Path("models")
    """Registry of models, written."""
    estimator: str = "LogisticRegression"
    """scikit-learn class that is fitted."""
    estimator_parameters: dict[str, Any] = Field(default_factory=dict)
    """Of the estimator's constructor, as a JSON object of scikit-learn's names, {"C": 0.1} for
    example; the others have scikit-learn's defaults."""
    standardise: bool = False
    """Whether inputs are fitted less their mean, in units of their standard deviation; the weights
    that are published are for the declared bounds all the same."""
    prune: float = Field(default=0, ge=0, lt=1)
    """Share of the inputs, those that matter least, whose weights are taken at the end: they are
    neither encrypted nor evaluated."""
    grid: Annotated[list[Grid], BeforeValidator(_grids)] = Field(default_factory=list)
    """What to search, as a JSON object with a list of values a parameter, {"C": [0.1, 1]} for
    example, or a list of such objects; n_bits among the parameters stands for the bits, 2 to 8, to
    which the compiler quantises inputs and weights. Without one there is one fit."""
    folds: int = Field(default=5, ge=2)
    """Parts into which a search splits the rows: each is predicted by a fit of the others."""
    validation_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of the rows that are not fitted, and that the published model is measured on."""
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """Of the splits, and of estimators that draw random numbers."""
    out_of_bounds: OutOfBounds = "refuse"
    """What is done, here and by key holders, with a value outside its declared bounds."""
    retrain: bool = False
    """Train even where a model of the same rows and settings is published."""

    @property
    def reading(self) -> Reading:
        """How the rows are read.

        Raises:
            CloisterError: there is no schema at ``schema_path``.
        """
        columns = Columns(self.label_column or None, frozenset(self.ignored_columns))
        return Reading(self.data, self.out_of_bounds, columns)

    @property
    def name(self) -> str:
        """Name under which the model is published.

        Raises:
            CloisterError: there is no schema at ``schema_path``.
        """
        return self.model or self.data.dataset

    @cached_property
    def data(self) -> DatasetSchema:
        """Schema of the rows.

        Raises:
            CloisterError: there is none at ``schema_path``.
        """
        return chosen_schema(self.dataset, self.schema_path)
