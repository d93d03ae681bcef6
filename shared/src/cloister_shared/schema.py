"""The public description of a dataset. It holds no data and nothing derived from data."""

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PositiveInt,
    Tag,
    ValidationError,
    model_validator,
)

from cloister_shared.digests import digest_json
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import Task
from cloister_shared.labels import UNKNOWN, Positions


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("names and labels must be printable text on one line")
    return text


Text = Annotated[str, Field(min_length=1), AfterValidator(_printable)]
"""Text that can be shown as it is: a schema may come from a party that is not trusted."""
Label = int | Text
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
CATEGORIES_SHOWN = 10
"""That a message lists."""
MAX_INPUTS = 65536
"""That a row may become: a schema may come from a party that is not trusted."""
Answers = npt.NDArray[np.int64] | npt.NDArray[np.float64]
"""What rows are to be predicted as: positions of classes, or targets, shape (n,)."""


class Feature(BaseModel):
    """A column of numbers and its declared bounds, in the unit of the raw data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Text
    low: FiniteFloat
    high: FiniteFloat
    missing: FiniteFloat | None = None
    """What stands for a missing value, within the bounds; None: a missing value is refused."""

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"feature {self.name}: low {self.low} must be below high {self.high}")
        if not math.isfinite(self.high - self.low):
            raise ValueError(f"feature {self.name}: {self.low} and {self.high} are too far apart")
        if self.missing is not None and not self.low <= self.missing <= self.high:
            raise ValueError(
                f"feature {self.name}: missing {self.missing} must be within [{self.low}, "
                f"{self.high}]"
            )
        return self

    @property
    def n_inputs(self) -> int:
        """Inputs that a value becomes."""
        return 1

    @property
    def described(self) -> str:
        """What a value must be, for messages."""
        return f"it must be a number in [{self.low}, {self.high}]"


class Category(BaseModel):
    """A column of labels from a declared list: each label becomes an input of 0 or 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Text
    categories: tuple[Label, ...] = Field(min_length=2)
    missing: Label | None = None
    """Which of them stands for a missing value; None: a missing value is refused."""
    unknown: Literal["refuse", "ignore"] = "refuse"
    """What happens to a label that is none of them: ``ignore`` makes all its inputs 0."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        texts = [str(label) for label in self.categories]
        if len(set(texts)) != len(texts):
            raise ValueError(f"feature {self.name}: categories must be unique")
        if self.missing is not None and str(self.missing) not in texts:
            raise ValueError(f"feature {self.name}: missing must be one of the categories")
        return self

    @property
    def n_inputs(self) -> int:
        """Inputs that a value becomes."""
        return len(self.categories)

    @cached_property
    def positions(self) -> Positions:
        """Finds the category that a label means: cells are looked up one by one, so it is kept."""
        return Positions(self.categories)

    @property
    def described(self) -> str:
        """What a value must be, for messages."""
        shown = ", ".join(map(str, self.categories[:CATEGORIES_SHOWN]))
        more = len(self.categories) - CATEGORIES_SHOWN
        return f"it must be one of {shown}" + (f" and {more} more" if more > 0 else "")


def _kind(given: object) -> str:
    is_category = isinstance(given, Category) or (isinstance(given, dict) and "categories" in given)
    return "category" if is_category else "number"


AnyFeature = Annotated[
    Annotated[Feature, Tag("number")] | Annotated[Category, Tag("category")], Discriminator(_kind)
]
"""A column of numbers, or of labels where ``categories`` are declared."""


class Bounds:
    """Bounds and policies of features as arrays of shape (n_features,).

    Compared by identity, so that schemas that keep them are compared by what they declare.

    Attributes:
        lows: lower bounds of encoded values; 0 of a category.
        highs: upper bounds of encoded values; the last position of a category.
        missing: what stands for a missing value, encoded; NaN where nothing does.
        categories: whether a feature is a category.
        ignores_unknown: whether it takes labels that it does not know.
    """

    def __init__(self, features: Sequence[Feature | Category]) -> None:
        self.categories = np.array([isinstance(one, Category) for one in features])
        ends = [
            (0.0, one.n_inputs - 1.0) if isinstance(one, Category) else (one.low, one.high)
            for one in features
        ]
        self.lows, self.highs = np.array(ends).T.copy()
        self.missing = np.array([_missing(one) for one in features])
        self.ignores_unknown = np.array(
            [isinstance(one, Category) and one.unknown == "ignore" for one in features]
        )


def _missing(feature: Feature | Category) -> float:
    if feature.missing is None:
        return math.nan
    if isinstance(feature, Category):
        return float(feature.positions.of([feature.missing])[0])
    return feature.missing


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
    """Features with their bounds or categories, image shape, and classes or target of a dataset.

    All of it is declared, never measured: sites and key holder map rows to inputs in [0, 1] by it
    alone, and the compiler calibrates from it, so that no step needs anyone's data.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: Text
    task: Task = "classification"
    features: tuple[AnyFeature, ...] = Field(min_length=1)
    image_shape: tuple[PositiveInt, PositiveInt] | None = None
    """Height and width in pixels where the features are an image in row-major order."""
    pool: PositiveInt = 1
    """Pixels, down and across, whose mean becomes one input of an image; must divide its shape."""
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
        self._check_image()
        if self.n_inputs > MAX_INPUTS:
            raise ValueError(f"a row becomes {self.n_inputs} inputs; {MAX_INPUTS} are the most")
        return self

    def _check_image(self) -> None:
        if self.image_shape is None:
            if self.pool != 1:
                raise ValueError("pool is of images: give image_shape too")
            return
        height, width = self.image_shape
        if height * width != len(self.features):
            raise ValueError(
                f"image_shape {self.image_shape} does not hold {len(self.features)} features"
            )
        if self.has_categories:
            raise ValueError("an image has no categories")
        if height % self.pool or width % self.pool:
            raise ValueError(f"pool {self.pool} does not divide image_shape {self.image_shape}")

    @property
    def n_features(self) -> int:
        """Number of columns of the raw data."""
        return len(self.features)

    @cached_property
    def n_inputs(self) -> int:
        """Number of values in [0, 1] that a row becomes, which models are fitted on."""
        return sum(feature.n_inputs for feature in self.features) // self.pool**2

    @cached_property
    def has_categories(self) -> bool:
        """Whether a feature is a category, so that raw rows are not all numbers."""
        return any(isinstance(feature, Category) for feature in self.features)

    @cached_property
    def input_names(self) -> tuple[str, ...]:
        """Of what models are fitted on, in order: a category's are ``name=label``."""
        if self.image_shape and self.pool > 1:
            rows, columns = (side // self.pool for side in self.image_shape)
            return tuple(f"pool_{row}_{column}" for row in range(rows) for column in range(columns))
        names: list[str] = []
        for feature in self.features:
            if isinstance(feature, Category):
                names += [f"{feature.name}={label}" for label in feature.categories]
            else:
                names.append(feature.name)
        return tuple(names)

    @property
    def n_outputs(self) -> int:
        """Rows of ``coef_``: one a class; a single one for two classes, and for a regression."""
        return len(self.classes) if len(self.classes) > 2 else 1

    @cached_property
    def bounds(self) -> "Bounds":
        """The features' bounds and policies as arrays."""
        return Bounds(self.features)

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
        indices = Positions(self.classes).of(_column(labels).tolist())
        unknown = np.flatnonzero(indices == UNKNOWN)
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

    def answers(self, labels: npt.ArrayLike) -> Answers:
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
