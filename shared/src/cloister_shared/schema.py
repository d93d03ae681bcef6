"""The public description of a dataset. It holds no data and nothing derived from data."""

import math
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    model_validator,
)

from cloister_shared.digests import digest_json
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import Task


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("names and labels must be printable text on one line")
    return text


Text = Annotated[str, Field(min_length=1), AfterValidator(_printable)]
"""Text that can be shown as it is: a schema may come from a party that is not trusted."""
Label = int | Text
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]


class Feature(BaseModel):
    """One input column and its declared bounds, in the unit of the raw data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Text
    low: FiniteFloat
    high: FiniteFloat

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"feature {self.name}: low {self.low} must be below high {self.high}")
        if not math.isfinite(self.high - self.low):
            raise ValueError(f"feature {self.name}: {self.low} and {self.high} are too far apart")
        return self


class Target(BaseModel):
    """What a regression predicts, and its declared bounds in the unit of the raw data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: FiniteFloat
    high: FiniteFloat

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Self:
        if not (self.low < self.high and math.isfinite(self.high - self.low)):
            raise ValueError(f"target: low {self.low} must be below high {self.high}")
        return self

    @property
    def width(self) -> float:
        """Between the bounds; above 0."""
        return self.high - self.low


class DatasetSchema(BaseModel):
    """Feature names, declared bounds, image shape, and classes or target of a dataset.

    The bounds are declared, never measured: sites and key holder map features from them to [0, 1],
    and the compiler calibrates from them, so that no step needs anyone's data.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: Text
    task: Task = "classification"
    features: tuple[Feature, ...] = Field(min_length=1)
    image_shape: tuple[PositiveInt, PositiveInt] | None = None
    """Height and width in pixels where the features are an image in row-major order."""
    label: Text = "label"
    """Name of the column with the labels or the target, in tables that name their columns."""
    classes: tuple[Label, ...] = ()
    """Of a classification, two or more."""
    target: Target | None = None
    """Of a regression."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        names = [feature.name for feature in self.features]
        if len(set(names)) != len(names):
            raise ValueError("feature names must be unique")
        if self.label in names:
            raise ValueError(f"label {self.label!r} is the name of a feature too")
        if self.task == "classification" and (len(self.classes) < 2 or self.target):
            raise ValueError("a classification has two or more classes, and no target")
        if self.task == "regression" and (self.classes or not self.target):
            raise ValueError("a regression has a target, and no classes")
        if len({str(label) for label in self.classes}) != len(self.classes):
            raise ValueError("classes must be unique")
        if self.image_shape and self.image_shape[0] * self.image_shape[1] != len(self.features):
            raise ValueError(
                f"image_shape {self.image_shape} does not hold {len(self.features)} features"
            )
        return self

    @property
    def n_features(self) -> int:
        """Number of columns of the raw data."""
        return len(self.features)

    @property
    def n_inputs(self) -> int:
        """Number of values in [0, 1] that a row becomes, which models are fitted on."""
        return len(self.features)

    @property
    def n_outputs(self) -> int:
        """Rows of ``coef_``: one a class; a single one for two classes, and for a regression."""
        return len(self.classes) if len(self.classes) > 2 else 1

    @cached_property
    def lows(self) -> npt.NDArray[np.float64]:
        """Lower bounds, shape (n_features,)."""
        return np.array([feature.low for feature in self.features])

    @cached_property
    def highs(self) -> npt.NDArray[np.float64]:
        """Upper bounds, shape (n_features,)."""
        return np.array([feature.high for feature in self.features])

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON: two parties with equal digests mean the same columns."""
        return digest_json(self.model_dump(mode="json"))

    def class_indices(self, labels: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return the position of every label in ``classes``, shape (n,).

        Labels are compared as text, so that 7 and "7" are one class, and so is 7.0.

        Args:
            labels: shape (n,).

        Raises:
            CloisterError: ``labels`` is not one column, or a label is not among the classes; the
                message names its row, and never the label.
        """
        column = _column(labels)
        known = {str(label): index for index, label in enumerate(self.classes)}
        indices = np.array([known.get(_text(label), -1) for label in column], dtype=np.int64)
        unknown = np.flatnonzero(indices < 0)
        if unknown.size:
            raise CloisterError(
                f"row {unknown[0]}: the label is not a class of {self.dataset}; the classes are "
                f"{', '.join(map(str, self.classes))}"
            )
        return indices

    def targets(self, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return a regression's targets as floats, shape (n,).

        Args:
            values: shape (n,).

        Raises:
            CloisterError: ``values`` is not one column of finite numbers within the declared
                bounds; the message names the row, and never the value.
        """
        column, target = _column(values), self._target
        try:
            found = column.astype(np.float64)
        except (TypeError, ValueError):
            raise CloisterError("targets must be numbers") from None
        # Written so that what is not a number is outside too.
        outside = np.flatnonzero(~((found >= target.low) & (found <= target.high)))
        if outside.size:
            raise CloisterError(
                f"row {outside[0]}: the target is missing, or outside its declared bounds "
                f"[{target.low}, {target.high}]"
            )
        return found

    def answers(self, labels: npt.ArrayLike) -> npt.NDArray[np.float64] | npt.NDArray[np.int64]:
        """Return what a model is to predict: positions of classes, or targets, shape (n,).

        Raises:
            CloisterError: as ``class_indices`` or ``targets``.
        """
        return self.targets(labels) if self.task == "regression" else self.class_indices(labels)

    @property
    def _target(self) -> Target:
        if self.target is None:
            raise CloisterError(f"{self.dataset} is a classification: it has no target")
        return self.target

    def labels(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.generic]:
        """Return the class label at each of ``indices``, shape (n,).

        Args:
            indices: positions in ``classes``, 0 to ``len(classes) - 1``, shape (n,).
        """
        classes: npt.NDArray[np.generic] = np.array(self.classes)
        return classes[indices]


def _column(values: npt.ArrayLike) -> npt.NDArray[Any]:
    column = np.asarray(values)
    if column.ndim != 1:
        raise CloisterError(f"labels have shape {column.shape}; they must be one column")
    return column


def _text(label: Any) -> str:
    # A column of whole numbers with a gap is read as floats by pandas and by CSV readers.
    whole = isinstance(label, float | np.floating) and float(label).is_integer()
    return str(int(label) if whole else label)


def read_schema(path: Path) -> DatasetSchema:
    """Read a schema from a JSON file.

    Raises:
        CloisterError: the file is missing, or is not a schema.
    """
    try:
        return DatasetSchema.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise CloisterError(f"{path} is missing: it must hold the schema as JSON") from None
    except IsADirectoryError:
        raise CloisterError(f"{path} is a folder: name the JSON file with the schema") from None
    except ValidationError as error:
        raise CloisterError(f"{path} is not a schema: {error}") from None
