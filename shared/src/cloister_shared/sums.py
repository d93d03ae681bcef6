"""The sums over rows that a least-squares fit needs, and nothing else of the rows.

Of the rows of several sites they are the sums of the sites' own: a fit of their total is the fit of
all rows in one place.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cloister_shared.errors import CloisterError
from cloister_shared.schema import DatasetSchema, Target
from cloister_shared.standardising import ROUNDING, Standardisation

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sums:
    """The Gram matrix of the columns 1, x_1, ..., x_p, y: entry (i, j) sums column i by column j.

    The inputs x are in [0, 1], and so is y, which the target's declared bounds are mapped to.
    """

    gram: Floats
    """Shape (p + 2, p + 2), symmetric; entry (0, 0) is the number of rows."""

    @classmethod
    def of(cls, inputs: Floats, targets: Floats, target: Target) -> "Sums":
        """Return the sums of a site's rows.

        Args:
            inputs: in [0, 1], shape (n, p).
            targets: within the target's bounds, shape (n,).
            target: the declared bounds.
        """
        unit = (targets - target.low) / target.width
        columns: Floats = np.column_stack([np.ones(len(inputs)), inputs, unit])
        gram: Floats = columns.T @ columns
        return cls(gram)

    def standardised(self, standardisation: Standardisation) -> "Sums":
        """Return the sums of the same rows with their inputs standardised."""
        change = np.eye(len(self.gram))
        inputs = slice(1, -1)
        factors = 1.0 / np.array(standardisation.deviations)
        change[inputs, inputs] = np.diag(factors)
        change[0, inputs] = -np.array(standardisation.means) * factors
        return Sums(change.T @ self.gram @ change)

    @property
    def rows(self) -> float:
        """Number of rows."""
        return float(self.gram[0, 0])

    @staticmethod
    def shape(data: DatasetSchema) -> tuple[int, int]:
        """Return the shape of the matrix for rows of this schema."""
        return data.n_inputs + 2, data.n_inputs + 2

    def check(self, data: DatasetSchema) -> None:
        """Raise unless these can be the sums of one or more rows of this schema.

        Raises:
            CloisterError: saying what is wrong.
        """
        gram = self.gram
        if gram.shape != self.shape(data):
            raise CloisterError(f"the sums have shape {gram.shape}, not {self.shape(data)}")
        if not np.isfinite(gram).all():
            raise CloisterError("the sums hold values that are not finite")
        slack = ROUNDING * max(self.rows, 1.0)
        if self.rows < 1 - slack:
            raise CloisterError("the sums are of no rows")
        if not np.allclose(gram, gram.T, rtol=0, atol=slack):
            raise CloisterError("the sums are not symmetric")
        # Columns are in [0, 1]: a product is no larger than either factor, and the first is 1.
        sums = gram[0]
        if (gram < -slack).any() or (gram > np.minimum.outer(sums, sums) + slack).any():
            raise CloisterError("the sums are not those of values in [0, 1]")
