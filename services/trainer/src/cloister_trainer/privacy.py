"""Central differential privacy of sites: bounded updates, Gaussian noise, and what it costs.

What is bounded is how much anyone can tell, from the global models of all rounds and the published
one, whether a site's rows were used: every site's update is clipped to an l2 norm C, all count the
same, and the mean of n of them gets Gaussian noise of standard deviation z C / n a value. Removing
one site's update from the sum moves it by at most C, so each round is one release of a Gaussian
mechanism with noise multiplier z, whatever n is: fewer sites get more noise each. (Flower's own
wrapper divides by the number of sites that was expected, and adds too little when some are
missing.) Whatever a strategy makes of the noised mean costs nothing further.

What epsilon does not cover: the trainer itself, which sees updates before the noise; that a site
takes part, replies or fails, and so n, which the log and the card tell; and a second training on
the same rows, whose epsilon is its own and adds up. Sampling in floating point leaves traces in the
lowest bits of a sum that an attacker who sees every bit can use (Mironov 2012, "On significance of
the least significant bits for differential privacy"); nothing here is done against that.
"""

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Message
from flwr.supercore.privacy_accounting import (
    GaussianPrivacyEvent,
    NeighboringRelation,
    PrivacyConfig,
    SamplingMethod,
)
from flwr.supercore.privacy_accounting.rdp_accountant import RdpAccountant

from cloister_shared.errors import CloisterError
from cloister_shared.weights import LinearWeights
from cloister_trainer.records import synthetic_reply, weights_of

Entropy = Callable[[int], bytes]
"""Returns that many bytes that nobody can foresee."""

_MANTISSA = 1 << 53


class GaussianPrivacy:
    """Clips updates, adds noise to their mean, and counts what that costs.

    The noise of every round is made of fresh bytes of the operating system's generator and kept
    nowhere: who had it, or could compute it from a seed, could take it off again.
    """

    def __init__(
        self,
        noise_multiplier: float,
        clipping_norm: float,
        delta: float,
        epsilon_budget: float | None = None,
        entropy: Entropy = os.urandom,
    ) -> None:
        """Begin with nothing spent.

        Args:
            noise_multiplier: z, standard deviation of the noise on the sum in units of
                ``clipping_norm``.
            clipping_norm: C, largest l2 norm of one site's update, coefficients and intercepts as
                one vector.
            delta: at which epsilon is stated.
            epsilon_budget: epsilon that may be spent; None: any.
            entropy: where noise comes from; another than the default is for tests.
        """
        self._noise_multiplier = noise_multiplier
        self._clipping_norm = clipping_norm
        self._delta = delta
        self._budget = epsilon_budget
        self._entropy = entropy
        self._accountant = _accountant(delta)

    def allows_round(self) -> bool:
        """Return whether the budget has room for another round."""
        return self._budget is None or not self._accountant.would_exceed(
            _release(self._noise_multiplier), self._budget
        )

    def clip(self, received: LinearWeights, replies: list[Message]) -> list[Message]:
        """Return the replies with every update within the clipping norm.

        Sites clip too, but they need not be believed. Under secure aggregation the only reply is
        the mean already, and a site that does not clip gives up its own protection alone.
        """
        return [synthetic_reply(self._clipped(received, weights_of(reply))) for reply in replies]

    def noise(self, before: LinearWeights, after: LinearWeights, sites: int) -> LinearWeights:
        """Return the mean with noise.

        Args:
            before: the weights that sites fitted from.
            after: the mean of the weights they came to. An update longer than the clipping norm is
                no mean of clipped ones and is clipped, which brings no two means further apart.
            sites: how many there are in the mean.
        """
        mean = self._clipped(before, after)
        deviation = self._noise_multiplier * self._clipping_norm / sites
        values = deviation * standard_normal(mean.coef.size + mean.intercept.size, self._entropy)
        coef, intercept = np.split(values, [mean.coef.size])
        return mean + LinearWeights(
            coef.reshape(mean.coef.shape), intercept.reshape(mean.intercept.shape)
        )

    def spend(self) -> float:
        """Count one round and return epsilon of all rounds so far, at the delta."""
        self._accountant.compose(_release(self._noise_multiplier))
        return self._accountant.get_epsilon(self._delta)

    def state(self) -> dict[str, Any]:
        """Return what has been spent, as JSON; never anything of the noise."""
        return self._accountant.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what ``state`` returned.

        Raises:
            CloisterError: it is of other settings, or no such state.
        """
        try:
            self._accountant.load_state_dict(state)
        except (ValueError, TypeError, AttributeError) as error:
            raise CloisterError(f"what was spent of the privacy budget is lost: {error}") from None

    def _clipped(self, received: LinearWeights, weights: LinearWeights) -> LinearWeights:
        update = weights - received
        if update.l2_norm <= self._clipping_norm:
            return weights
        return received + update.clipped(self._clipping_norm)


def standard_normal(size: int, entropy: Entropy = os.urandom) -> npt.NDArray[np.float64]:
    """Return independent values of mean 0 and standard deviation 1 (Box and Muller 1958).

    Every value comes from 106 fresh bits, and none is beyond 8.6.
    """
    words = np.frombuffer(entropy(16 * size), "<u8").reshape(2, size) >> np.uint64(11)
    radius = np.sqrt(-2 * np.log((words[0] + 1.0) / _MANTISSA))
    values: npt.NDArray[np.float64] = radius * np.cos(2 * np.pi * (words[1] / _MANTISSA))
    return values


def epsilon_after(rounds: int, noise_multiplier: float, delta: float) -> float:
    """Return epsilon at ``delta`` after so many rounds."""
    accountant = _accountant(delta)
    accountant.compose(_release(noise_multiplier), rounds)
    return accountant.get_epsilon(delta)


def affordable_rounds(
    most: int, noise_multiplier: float, delta: float, epsilon_budget: float
) -> int:
    """Return how many rounds, at most ``most``, the budget allows."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if epsilon_after(middle, noise_multiplier, delta) <= epsilon_budget:
            low = middle
        else:
            high = middle - 1
    return low


def sufficient_noise(rounds: int, delta: float, epsilon_budget: float) -> float:
    """Return a noise multiplier, to three digits, with which so many rounds fit into the budget.

    Raises:
        CloisterError: none does; RDP accounting reaches no epsilon that small at this delta.
    """
    low, high = 1e-2, 1e6
    if epsilon_after(rounds, high, delta) > epsilon_budget:
        raise CloisterError(
            f"CLOISTER_EPSILON_BUDGET={epsilon_budget:g} is too small for any noise at "
            f"CLOISTER_DELTA={delta:g}"
        )
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        if epsilon_after(rounds, middle, delta) <= epsilon_budget:
            high = middle
        else:
            low = middle
    unit = 10.0 ** (math.floor(math.log10(high)) - 2)
    return math.ceil(high / unit) * unit


def check_budget(rounds: int, noise_multiplier: float, delta: float, epsilon_budget: float) -> int:
    """Return how many of the rounds the budget allows.

    Raises:
        CloisterError: none; the message names the noise that would fit.
    """
    allowed = affordable_rounds(rounds, noise_multiplier, delta, epsilon_budget)
    if allowed == 0:
        one, every = (sufficient_noise(n, delta, epsilon_budget) for n in (1, rounds))
        spent = epsilon_after(1, noise_multiplier, delta)
        raise CloisterError(
            f"CLOISTER_EPSILON_BUDGET={epsilon_budget:g} does not allow one round: it spends "
            f"{spent:.3g} at CLOISTER_NOISE_MULTIPLIER={noise_multiplier:g}; with "
            f"{one:.4g} one round fits, with {every:.4g} all {rounds}"
        )
    return allowed


def _accountant(delta: float) -> RdpAccountant:
    return RdpAccountant(
        PrivacyConfig(
            target_delta=delta,
            # Every site is in every round: nothing is sampled, and the size plays no part.
            population_size=1,
            neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
            sampling_method=SamplingMethod.NO_AMPLIFICATION,
        )
    )


def _release(noise_multiplier: float) -> GaussianPrivacyEvent:
    return GaussianPrivacyEvent(noise_multiplier, sample_size=1, population_size=1)
