"""The cheapest bits whose quantisation stays within the tolerance; nothing is compiled or run."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from cloister_compiler.quantisation import Bits, QuantisedModel, quantise
from cloister_shared.artifact import Agreement
from cloister_shared.card import ModelCard
from cloister_shared.cost import lwe_dimension
from cloister_shared.errors import CloisterError
from cloister_shared.probes import TOLERANCE, measure_agreement, synthetic_rows
from cloister_shared.reference import needed_features
from cloister_shared.weights import LinearWeights

AUTO_BITS = range(2, 9)
"""What ``auto`` chooses from."""
DEFAULT_BITS = 8

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
BitsOrAuto = int | Literal["auto"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Precision:
    """How finely a model may or must be quantised."""

    inputs: BitsOrAuto | None = None
    """Bits of the inputs, 2 to 8, or ``auto``: the cheapest within the tolerance; None: 8."""
    weights: BitsOrAuto | None = None
    """Bits of the weights, likewise."""
    tolerance: float = TOLERANCE
    """The largest share of synthetic rows, in [0, 1], that the quantised model may predict
    otherwise than the float one."""

    def of_model(self, card: ModelCard) -> "Precision":
        """Return this with the bits of the model's card, where it leaves them open, else 8."""
        bits = card.bits or DEFAULT_BITS
        return replace(self, inputs=self.inputs or bits, weights=self.weights or bits)

    @property
    def candidates(self) -> list[Bits]:
        """All bits that are allowed."""
        return [
            Bits(inputs, weights)
            for inputs in _allowed(self.inputs)
            for weights in _allowed(self.weights)
        ]


def _allowed(bits: BitsOrAuto | None) -> Sequence[int]:
    return AUTO_BITS if bits == "auto" else [bits or DEFAULT_BITS]


@dataclass(frozen=True)
class _Candidate:
    quantised: QuantisedModel
    n_features: int
    dimension: int

    @property
    def words(self) -> int:
        """Mask words of one encrypted row."""
        return self.n_features * self.dimension


def quantise_cheapest(
    card: ModelCard, weights: LinearWeights, precision: Precision, calibration: Floats
) -> QuantisedModel:
    """Quantise on all features, with the cheapest of the bits that stays within the tolerance.

    The cost of bits is the features that they leave with a weight, times the LWE dimension that
    their circuit will have: what is encrypted, expanded and multiplied. The result is the same for
    the same arguments. Where there is nothing to choose, the bits are taken whatever they lose:
    see ``check_tolerance``.

    Args:
        card: as for ``quantise``.
        weights: as for ``quantise``.
        precision: bits to choose from, and the tolerance.
        calibration: as for ``quantise``.

    Raises:
        CloisterError: no bits can quantise the model, or none stays within the tolerance.
    """
    if len(precision.candidates) == 1:
        return quantise(card, weights, precision.candidates[0], calibration)
    found = _quantised(card, weights, precision, calibration)
    rows = synthetic_rows(weights.coef)
    agreements: list[Agreement] = []
    log.info("bits: inputs  weights  features  LWE dimension  features x dimension  differing")
    for candidate in found:
        agreement = measure_agreement(candidate.quantised.reference, rows, card)
        bits = candidate.quantised.bits
        log.info(
            "%12d  %7d  %8d  %13d  %20d  %7.2f %%",
            bits.inputs,
            bits.weights,
            candidate.n_features,
            candidate.dimension,
            candidate.words,
            100 * agreement.share,
        )
        if agreement.share <= precision.tolerance:
            log.info("chose %s: the cheapest within %.2f %%", bits, 100 * precision.tolerance)
            return candidate.quantised
        agreements.append(agreement)
    closest = min(agreements, key=lambda one: one.differing)
    raise _beyond_tolerance(closest, precision, f"any of {len(found)} pairs of bits")


def check_tolerance(agreement: Agreement, precision: Precision, bits: Bits) -> None:
    """Raise if more synthetic rows are predicted otherwise than the tolerance allows.

    Raises:
        CloisterError: saying how many, and what to do.
    """
    if agreement.share > precision.tolerance:
        raise _beyond_tolerance(agreement, precision, str(bits))


def _quantised(
    card: ModelCard, weights: LinearWeights, precision: Precision, calibration: Floats
) -> list[_Candidate]:
    """Return what can be quantised at all, the cheapest first."""
    found: list[_Candidate] = []
    refusals: list[CloisterError] = []
    for bits in precision.candidates:
        try:
            quantised = quantise(card, weights, bits, calibration)
        except CloisterError as error:
            refusals.append(error)
            continue
        kept = needed_features(quantised.reference)
        dimension = dimension_of(quantised, kept, calibration)
        found.append(_Candidate(quantised, len(kept), dimension))
    if not found:
        raise refusals[-1]
    return sorted(found, key=lambda one: one.words)


def dimension_of(quantised: QuantisedModel, features: Integers, calibration: Floats) -> int:
    """Predict the LWE dimension of the circuit on these features; see ``lwe_dimension``."""
    return lwe_dimension(
        quantised.raw_weights[features],
        quantised.weight_zero_point,
        quantised.reference.bias,
        quantised.reference.quantiser.quantise(calibration[:, features]),
    )


def _beyond_tolerance(agreement: Agreement, precision: Precision, at: str) -> CloisterError:
    more = (
        "there are no more than 8: regularise more"
        if Bits(8, 8) in precision.candidates
        else "give it more (CLOISTER_BITS, up to 8, or auto)"
    )
    return CloisterError(
        f"quantised at {at}, the model predicts {agreement.differing} of {agreement.probes} "
        f"synthetic rows ({100 * agreement.share:.2f} %) otherwise than in floating point, and "
        f"CLOISTER_TOLERANCE allows {100 * precision.tolerance:.2f} %: {more}, or allow that loss; "
        "not published"
    )
