"""What sites and trainer agree on in secure aggregation (SecAgg+), beside Flower's protocol.

Flower 1.41 makes its masks with ``numpy.random.RandomState`` from a seed that it folds to 32 bits
(28 where the seed is an agreed key, which is base64 text): whoever tries them all removes the mask
of a site that dropped out late, and with three sites the others' too. Here a mask comes from all
256 bits of its seed and a cryptographic function. Both ends of a run must use the same.
"""

import hashlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from cloister_shared.errors import CloisterError
from cloister_shared.schema import DatasetSchema

MODULUS = 1 << 32
"""Masks and sums are modulo this, so that a word of a mask is four bytes of SHAKE-256's output."""
MIN_SITES = 3
"""With two, each would know the other's update from the mean."""
MIN_QUANTISATION = 1 << 22
"""Steps into which the range of a value is divided, at least; Flower's default."""
MAX_QUANTISATION = 1 << 30
"""At most, as Flower quantises to int32."""
MAX_SITES = MODULUS // MIN_QUANTISATION - 1
"""1023: the sum of more values of ``MIN_QUANTISATION`` steps could pass the modulus."""
SUM_PARTS = 1 << 20
"""Into which a sum is divided: one number is masked that counts them, and one with the rest. It
divides the steps from the middle of the range to its end, so that counts are not rounded."""
LOSS_LIMIT = 40.0
"""Above every cross-entropy a site can measure: scikit-learn's log_loss takes no probability below
the float64 epsilon, whose negative logarithm is 36.04. A hinge loss above it counts as this."""

_DOMAIN = b"cloister secure aggregation mask 1\0"
_PATCHED = "pseudo_rand_gen"
"""Name of Flower's mask function in the modules that use it."""


def quantisation_range(sites: int) -> int:
    """Return the steps into which a value is quantised: as many as the modulus leaves for a sum.

    A value becomes an integer from 0 to this, and so does a weight; the sum over all sites of
    either stays below ``MODULUS``.

    Args:
        sites: whose values are summed, at most.

    Raises:
        CloisterError: fewer than ``MIN_SITES`` or more than ``MAX_SITES``.
    """
    if not MIN_SITES <= sites <= MAX_SITES:
        raise CloisterError(
            f"secure aggregation is for {MIN_SITES} to {MAX_SITES} sites, and these are {sites}"
        )
    most = (MODULUS - 1) // sites
    return min(1 << (most.bit_length() - 1), MAX_QUANTISATION)


def pack_sums(
    values: npt.NDArray[np.float64], most: float, clipping_range: float
) -> npt.NDArray[np.float64]:
    """Return sums over a site's rows as two numbers each, which carry more digits than one.

    Args:
        values: from 0 to ``most``.
        most: rows that a site may have.
        clipping_range: largest magnitude of a value that can be masked; all are within it.

    Returns:
        Shape (2, ...): whole parts, as a share of all, and what is left of a part.
    """
    parts = values / most * SUM_PARTS
    whole = np.floor(parts)
    packed: npt.NDArray[np.float64] = np.stack([whole / SUM_PARTS, parts - whole])
    return clipping_range * packed


def unpack_sums(
    mean: npt.NDArray[np.float64], sites: int, most: float, clipping_range: float
) -> npt.NDArray[np.float64]:
    """Return the total over sites from the mean of what they packed; see ``sum_error``.

    Args:
        mean: shape (2, ...).
        sites: in the mean.
        most: as ``pack_sums`` took it, and likewise the last.
        clipping_range: largest magnitude of a value that can be masked.
    """
    whole, left = mean * sites / clipping_range
    total: npt.NDArray[np.float64] = most * (np.rint(whole * SUM_PARTS) + left) / SUM_PARTS
    return total


def sum_error(sites: int, most: float) -> float:
    """Return by how much less than this a total is off: 7e-9 for ten sites of up to 100,000 rows.

    What is left of a part is rounded by less than one step at every site; steps are 2 / T of the
    range, for T of ``quantisation_range``.

    Args:
        sites: whose sums are added up.
        most: rows that a site may have.
    """
    return 2 * sites * most / (SUM_PARTS * quantisation_range(sites))


def pack_tail(
    clipping_range: float, metrics: tuple[float, float] | None, data: DatasetSchema
) -> npt.NDArray[np.float64]:
    """Return what a site sends after its update: a constant, and its metrics if it reports any.

    From the mean of the constant the trainer sees that the masks came off.

    Args:
        clipping_range: largest magnitude of a value that can be masked; all are within it.
        metrics: accuracy in [0, 1] and loss from 0, or of a regression mean absolute and mean
            squared error. What is beyond ``LOSS_LIMIT``, or an error beyond the declared width of
            the target, counts as that.
        data: the schema.
    """
    told = () if metrics is None else np.array(metrics) / _largest_metrics(data)
    return clipping_range * np.array([1.0, *np.minimum(told, 1.0)])


def unpack_metrics(
    mean: npt.NDArray[np.float64], clipping_range: float, data: DatasetSchema
) -> tuple[float, float]:
    """Return the metrics, averaged over sites, from the mean of what they packed.

    Rounding can carry a mean past the ends of its range by less than a step; it is moved back.
    """
    quality, loss = np.clip(mean[1:] / clipping_range, 0.0, 1.0) * _largest_metrics(data)
    return float(quality), float(loss)


def _largest_metrics(data: DatasetSchema) -> npt.NDArray[np.float64]:
    if data.target is None:
        return np.array([1.0, LOSS_LIMIT])
    return np.array([data.target.width, data.target.width**2])


def mask(seed: bytes, modulus: int, shapes: list[tuple[int, ...]]) -> list[npt.NDArray[np.int64]]:
    """Return arrays of integers that are uniform in [0, ``modulus``) to all who lack the seed.

    Args:
        seed: secret, 32 random bytes or a key agreed by two sites.
        modulus: ``MODULUS``, as Flower passes it.
        shapes: of the arrays.

    Raises:
        CloisterError: another modulus.
    """
    if modulus != MODULUS:
        raise CloisterError(f"secure aggregation is modulo {MODULUS}, not {modulus}")
    sizes = [int(np.prod(shape, dtype=np.int64)) for shape in shapes]
    stream = hashlib.shake_256(_DOMAIN + seed).digest(4 * sum(sizes))
    words = np.frombuffer(stream, "<u4").astype(np.int64)
    parts = np.split(words, np.cumsum(sizes)[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def strengthen(user: Callable[..., object]) -> None:
    """Make a function of Flower's, client's or server's, and its whole module use ``mask``.

    Raises:
        CloisterError: this version of Flower makes its masks in another way.
    """
    module = getattr(user, "__globals__", {})
    if _PATCHED not in module:
        raise CloisterError(
            "this version of Flower makes the masks of secure aggregation in another way than "
            "1.41, which Cloister is made for: install that one"
        )
    module[_PATCHED] = mask
