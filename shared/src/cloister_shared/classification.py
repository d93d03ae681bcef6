"""Scores of a linear classifier to probabilities and classes, as scikit-learn does it."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def probabilities(scores: Floats) -> Floats:
    """Class probabilities from scores.

    Two classes have one score, and the logistic function of it is the second class's probability;
    more have one score each, and softmax turns them into probabilities (multinomial logistic
    regression, scikit-learn's default for the lbfgs solver).

    Args:
        scores: finite, shape (n, 1) for two classes, else (n, n_classes).

    Returns:
        Shape (n, n_classes), rows summing to 1.
    """
    if scores.shape[1] == 1:
        scores = np.hstack([np.zeros_like(scores), scores])
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: Floats = exponentials / exponentials.sum(axis=1, keepdims=True)
    return result


def class_indices(scores: Floats) -> npt.NDArray[np.int64]:
    """Position of the predicted class, shape (n,): the first where scores are equal.

    Args:
        scores: shape (n, 1) for two classes, else (n, n_classes).
    """
    if scores.shape[1] == 1:
        return (scores[:, 0] > 0).astype(np.int64)
    indices: npt.NDArray[np.int64] = np.argmax(scores, axis=1).astype(np.int64)
    return indices
