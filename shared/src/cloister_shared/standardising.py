"""Standardised inputs: each less its mean over all sites' rows, in units of its deviation there.

Both follow from sums that the sites' own add up to, so that no site's rows are looked at elsewhere.
What is trained on standardised inputs is rewritten for inputs in [0, 1], exactly: whoever compiles,
encrypts or evaluates knows nothing of it.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cloister_shared.errors import CloisterError
from cloister_shared.schema import DatasetSchema
from cloister_shared.weights import LinearWeights

Floats = npt.NDArray[np.float64]

ROUNDING = 1e-9
"""Of a sum, as a share of the number of rows: what is off by less may be rounding."""
CONSTANT = 1e-9
"""Variance up to which an input counts as constant: sums that were masked tell none that is
smaller, and of a deviation of 3e-5 the 255 steps that an input is quantised to keep nothing."""


@dataclass(frozen=True)
class Moments:
    """Of rows of inputs x_1, ..., x_p in [0, 1], what means and deviations follow from."""

    values: Floats
    """Number of rows, then every input's sum, then that of its squares; shape (2p + 1,)."""

    @classmethod
    def of(cls, inputs: Floats) -> "Moments":
        """Return those of inputs in [0, 1], shape (n, p)."""
        # Rows may fill most of the memory: a table of their squares would not fit.
        squares = np.einsum("ij,ij->j", inputs, inputs)
        return cls(np.concatenate([[float(len(inputs))], inputs.sum(axis=0), squares]))

    @property
    def rows(self) -> float:
        """Number of rows."""
        return float(self.values[0])

    @staticmethod
    def shape(data: DatasetSchema) -> tuple[int]:
        """Return the shape of the values for rows of this schema."""
        return (2 * data.n_inputs + 1,)

    def check(self, data: DatasetSchema, error: float = 0.0) -> None:
        """Raise unless these can be of one or more rows of this schema.

        Args:
            data: the schema.
            error: by which a sum may be off, beside rounding.

        Raises:
            CloisterError: saying what is wrong.
        """
        if self.values.shape != self.shape(data):
            raise CloisterError(
                f"the sums of inputs have shape {self.values.shape}, not {self.shape(data)}"
            )
        if not np.isfinite(self.values).all():
            raise CloisterError("the sums of inputs hold values that are not finite")
        slack = ROUNDING * max(self.rows, 1.0) + error
        if self.rows < 1 - slack:
            raise CloisterError("the sums of inputs are of no rows")
        totals, squares = np.split(self.values[1:], 2)
        # The square of a value in [0, 1] is no larger, and the mean of squares no smaller than the
        # square of the mean.
        low = squares < totals**2 / self.rows - slack
        if (low | (squares > totals + slack) | (totals > self.rows + slack)).any():
            raise CloisterError("the sums of inputs are not those of values in [0, 1]")


class Standardisation(BaseModel):
    """Mean and standard deviation of every input."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    means: tuple[Annotated[float, Field(ge=0, le=1)], ...]
    deviations: tuple[Annotated[float, Field(gt=0, le=1)], ...]
    """Of the rows there are, not estimated for others as with n - 1; 1 of a constant input, which
    is then 0 in every row."""

    @classmethod
    def of(cls, moments: Moments) -> "Standardisation":
        """Return that of all rows, from moments that are checked."""
        totals, squares = np.split(moments.values[1:] / moments.rows, 2)
        variances = squares - totals**2
        deviations = np.sqrt(np.where(variances > CONSTANT, variances, 1.0))
        means = np.clip(totals, 0.0, 1.0)
        return cls(means=tuple(means.tolist()), deviations=tuple(deviations.tolist()))

    @classmethod
    def parse(cls, text: str) -> "Standardisation":
        """Return that which was dumped as JSON.

        Raises:
            CloisterError: it is none.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise CloisterError(f"this is no standardisation: {error}") from None

    def check(self, data: DatasetSchema) -> None:
        """Raise unless this is of the inputs of this schema.

        Raises:
            CloisterError: saying how many inputs it is of.
        """
        counts = {len(self.means), len(self.deviations)}
        if counts != {data.n_inputs}:
            told = " and ".join(map(str, sorted(counts)))
            raise CloisterError(
                f"the standardisation is of {told} inputs, and {data.dataset} has {data.n_inputs}"
            )

    def standardise(self, inputs: Floats) -> Floats:
        """Return a copy of inputs in [0, 1], shape (n, p), standardised."""
        standardised: Floats = (inputs - self.means) / self.deviations
        return standardised

    def fold(self, weights: LinearWeights) -> LinearWeights:
        """Return weights for inputs in [0, 1] that score as these do for standardised ones."""
        factor = 1.0 / np.array(self.deviations)
        return weights.absorbing(factor, -np.array(self.means) * factor)
