"""How the updates of one round come together, whichever way sites send them."""

from dataclasses import dataclass
from typing import Protocol

from flwr.app import Message

from cloister_shared.card import FinalMetrics
from cloister_shared.models import Model
from cloister_shared.standardising import Moments


@dataclass(frozen=True)
class Collected:
    """What a round brought in."""

    asked: int
    """Sites asked."""
    sites: int
    """Sites whose update is in it."""
    replies: list[Message]
    """What is aggregated: arrays, and metrics with the number of examples. One a site, or a single
    one with the mean, or the total of sums, where what single sites send is hidden."""
    examples: int | None
    """Rows fitted; missing where sites do not report them."""
    metrics: dict[str, float] | None
    """Of the model that was sent, averaged by validation rows, by the card's names; missing where
    sites do not report any."""


class Collection(Protocol):
    """One way of collecting updates."""

    def moments(self) -> Moments:
        """Have all sites that are online sum their inputs, and return the total.

        Raises:
            CloisterError: fewer sites than the quorum took part; the message has the reason.
        """

    def train(self, server_round: int, model: Model) -> Collected:
        """Have all sites that are online fit from this model on.

        Args:
            server_round: from 1.
            model: the global one.

        Raises:
            CloisterError: fewer sites than the quorum took part; the message has the reason.
        """

    def evaluate(self, model: Model) -> FinalMetrics | None:
        """Have all sites that are online measure this model; None where they report nothing.

        Raises:
            CloisterError: fewer sites than the quorum took part; the message has the reason.
        """
