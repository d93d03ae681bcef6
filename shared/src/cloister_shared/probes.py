"""Synthetic rows that show what quantisation costs, made from bounds and weights alone.

Whoever compiles has no data, and rows that are merely random say little: uniform ones have scores
close to each other, unlike data, and differ far too often; the extremes of a class are so far from
every other class that they never do. What counts is how a row comes to lie between classes. The
rows here are four equal parts:

1. the extreme rows of two outputs (largest or smallest score), mixed in a random proportion;
2. the rows that set one class most apart from the others, of two classes, mixed and thinned;
3. the prototypes of two classes, each feature in proportion to how much it speaks for the class,
   mixed and thinned;
4. uniform rows, thinned.

A mixture crosses the boundary between its classes. Thinned means that each row keeps a random
share of its features and has the others at their low, as most rows of real tables and images have.

This was compared with the share of held-out rows that a quantised model predicts otherwise than the
float one: logistic regressions of digits, breast_cancer and MNIST (two, one trained further), at
20 pairs of bits each. The share of these rows was the larger in 75 of the 80 cases, mostly one to
three times as large, and eight times at most. Of the other five, four were above .3 by either
measure, and one was .0051 against .0055. So it is a cautious guess about data, but no measurement.
"""

import numpy as np
import numpy.typing as npt

from cloister_shared.artifact import Agreement
from cloister_shared.calibration import extreme_rows
from cloister_shared.card import ModelCard
from cloister_shared.links import class_indices, link, values
from cloister_shared.reference import Reference

Floats = npt.NDArray[np.float64]

REGRESSION_MARGIN = 0.05
"""Of the target's declared width. On diabetes, whose models are off by some .15 themselves, 8 bits
are off by .02 at most and 4 bits by up to .08, or .26 where the link is logarithmic."""
TOLERANCE = 0.02
"""The largest share of these rows that a quantised model may by default predict otherwise than the
float one."""
PROBES = 4096
"""Rows; a share of 2 % is then known to within .0022 (one standard deviation)."""


def synthetic_rows(coef: Floats, n_rows: int = PROBES, seed: int = 0) -> Floats:
    """Rows in [0, 1], the same for the same arguments.

    Args:
        coef: float weights, shape (n_outputs, n_features).
        n_rows: of all four parts together, a multiple of 4.
        seed: of the random draws.

    Returns:
        Shape (n_rows, n_features).
    """
    generator = np.random.default_rng(seed)
    part, n_features = n_rows // 4, coef.shape[1]
    # One output scores the second class against the first.
    contrast = coef - coef.mean(axis=0) if len(coef) > 1 else np.vstack([-coef, coef])
    speaking_for = np.maximum(contrast, 0.0)
    largest = speaking_for.max(axis=1, keepdims=True)
    prototypes = np.divide(
        speaking_for, largest, out=np.zeros_like(speaking_for), where=largest > 0
    )
    return np.vstack(
        [
            _mixtures(extreme_rows(coef), part, generator),
            _thinned(_mixtures((contrast > 0).astype(np.float64), part, generator), generator),
            _thinned(_mixtures(prototypes, part, generator), generator),
            _thinned(generator.random((part, n_features)), generator),
        ]
    )


def measure_agreement(reference: Reference, rows: Floats, card: ModelCard) -> Agreement:
    """Count rows in [0, 1], shape (n, n_inputs), whose quantised prediction is another.

    Of a regression it is another where it is off by more than ``REGRESSION_MARGIN`` of the target's
    declared width, after both are moved to the nearer of its bounds.
    """
    clear = reference.dequantise(reference.integer_scores(reference.quantise(rows)))
    exact = reference.float_scores(rows)
    if card.data.target is None:
        others = class_indices(clear) != class_indices(exact)
    else:
        target, meaning = card.data.target, link(card.estimator, card.parameters, n_classes=0)
        with np.errstate(over="ignore"):
            predicted, expected = (
                np.clip(values(scores, meaning), target.low, target.high)
                for scores in (clear, exact)
            )
        others = np.abs(predicted - expected) > REGRESSION_MARGIN * target.width
    differing = int(others.sum())
    return Agreement(probes=len(rows), differing=differing, share=differing / len(rows))


def _mixtures(rows: Floats, n_rows: int, generator: np.random.Generator) -> Floats:
    """Convex combinations of two different ones of the rows, of which there are at least two."""
    first = generator.integers(len(rows), size=n_rows)
    second = (first + generator.integers(1, len(rows), size=n_rows)) % len(rows)
    proportion = generator.random((n_rows, 1))
    mixtures: Floats = proportion * rows[first] + (1.0 - proportion) * rows[second]
    return mixtures


def _thinned(rows: Floats, generator: np.random.Generator) -> Floats:
    """Keep of each row a share of its features that is itself drawn uniformly."""
    kept = generator.random(rows.shape) < generator.random((len(rows), 1))
    return rows * kept
