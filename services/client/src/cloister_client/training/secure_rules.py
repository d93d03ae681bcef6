"""What a site refuses in secure aggregation, before Flower's protocol sees the message.

Flower's own code checks the order of stages, the types of values and that enough neighbours are
left. It takes whatever parameters the server states, though, and answers whatever list of sites
the server calls active or dead. Fewer than three sites, a threshold that lets the server unmask one
site with the help of none, or masks of a few bits are refused here.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from flwr.app import ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp.typing import ClientAppCallable
from flwr.common.secure_aggregation.secaggplus_constants import (
    RECORD_KEY_CONFIGS,
    RECORD_KEY_STATE,
    Key,
    Stage,
)

from cloister_shared.errors import CloisterError
from cloister_shared.secure_aggregation import MIN_QUANTISATION, MIN_SITES, MODULUS

SHARES_HELD = "sk1_share_dict:K"
"""In the state that Flower keeps between stages: the sites of which this one holds key shares."""
FIT_RESULT = "fitres"
"""Before the names of the records that Flower makes of a fit's result."""


@dataclass(frozen=True)
class Limits:
    """Within what a site's numbers can be masked, as the server stated at the setup stage."""

    clipping_range: float
    """Largest magnitude of a value."""
    max_weight: float
    """Largest weight."""

    def check(self, arrays: Iterable[npt.NDArray[np.float64]], weight: int) -> None:
        """Refuse what Flower would clip, or let overflow, without a word.

        Raises:
            CloisterError: a value or the weight is beyond its limit; it says what to set.
        """
        check_rows(weight, self.max_weight)
        if any(np.abs(array).max(initial=0.0) > self.clipping_range for array in arrays):
            raise CloisterError(
                "a weight moved further than can be masked: raise CLOISTER_SECAGG_CLIPPING_RANGE "
                f"at the trainer above {self.clipping_range:g}"
            )


def check_rows(rows: float, most: float) -> None:
    """Refuse to mask what is of more rows than the run is for.

    Raises:
        CloisterError: it says what to set.
    """
    if rows > most:
        raise CloisterError(
            "this site has more rows than the run is for: raise CLOISTER_MAX_EXAMPLES at the "
            f"trainer above {most:.0f}"
        )


def limits_of(context: Context) -> Limits:
    """Return the limits that were stated at the setup stage.

    Raises:
        CloisterError: there was none.
    """
    state = context.state.config_records.get(RECORD_KEY_STATE)
    if state is None:
        raise CloisterError("secure aggregation asks for an update before its setup stage")
    return Limits(
        cast("float", state[Key.CLIPPING_RANGE]), float(cast("float", state[Key.MAX_WEIGHT]))
    )


def secure_rules(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Pass on a message of the protocol that a site can answer safely (a mod of Flower's).

    Raises:
        CloisterError: what is wrong with it.
    """
    if message.metadata.message_type != MessageType.TRAIN:
        # Flower's protocol would let it through to the site's own functions, unmasked.
        raise CloisterError("secure aggregation comes in messages of type train only")
    configs = message.content.config_records[RECORD_KEY_CONFIGS]
    stage = configs.get(Key.STAGE)
    if stage == Stage.SETUP:
        _check_setup(configs)
    else:
        state = context.state.config_records.get(RECORD_KEY_STATE)
        if state is None:
            raise CloisterError("secure aggregation begins with its setup stage")
        if stage == Stage.SHARE_KEYS:
            _check_neighbours(configs, state)
        elif stage == Stage.COLLECT_MASKED_VECTORS:
            _check_sources(configs, state)
        elif stage == Stage.UNMASK:
            _check_unmasking(configs, state)
    reply = call_next(message, context)
    if stage == Stage.COLLECT_MASKED_VECTORS:
        _hide_weight(reply.content)
    if stage == Stage.UNMASK:
        # Keys and seeds of this round; a second request to unmask finds none.
        del context.state.config_records[RECORD_KEY_STATE]
    return reply


def _check_setup(configs: ConfigRecord) -> None:
    sites = _integer(configs, Key.SAMPLE_NUMBER)
    shares = _integer(configs, Key.SHARE_NUMBER)
    threshold = _integer(configs, Key.THRESHOLD)
    steps = _integer(configs, Key.TARGET_RANGE)
    _require(sites >= MIN_SITES, f"it must be among {MIN_SITES} sites or more")
    _require(MIN_SITES <= shares <= sites, f"{shares} shares do not fit {sites} sites")
    # At half or less, two groups of sites could be told opposite things about a third: one gives
    # the shares of its key, as if it were gone, the other those of its seed.
    _require(
        shares < 2 * threshold <= 2 * shares,
        f"{threshold} of {shares} shares must not recover a secret: more than half must be needed",
    )
    _require(_integer(configs, Key.MOD_RANGE) == MODULUS, f"it must be modulo {MODULUS}")
    _require(
        steps >= MIN_QUANTISATION and sites * steps < MODULUS,
        f"{steps} steps are too few, or overflow over {sites} sites",
    )
    for key in (Key.CLIPPING_RANGE, Key.MAX_WEIGHT):
        value = configs.get(key)
        _require(
            isinstance(value, float) and math.isfinite(value) and value > 0,
            f"{key} must be a positive number",
        )


def _check_neighbours(configs: ConfigRecord, state: Mapping[str, Any]) -> None:
    # Flower reads the names as numbers, of which "2" and "02" are one. This site is among them.
    neighbours = len({int(name) for name in configs if name != Key.STAGE})
    least, most = int(state[Key.THRESHOLD]), int(state[Key.SHARE_NUMBER])
    _require(
        least <= neighbours <= most,
        f"keys of {neighbours} sites came, and {least} to {most} are needed",
    )


def _check_sources(configs: ConfigRecord, state: Mapping[str, Any]) -> None:
    sources = _integers(configs, Key.SOURCE_LIST)
    known = set(state.get("public_keys_dict:K", [])) - {state["nid"]}
    _require(
        len(set(sources)) == len(sources) and set(sources) <= known,
        "shares must come once each, from sites whose keys came before",
    )


def _check_unmasking(configs: ConfigRecord, state: Mapping[str, Any]) -> None:
    active = _integers(configs, Key.ACTIVE_NODE_ID_LIST)
    dead = _integers(configs, Key.DEAD_NODE_ID_LIST)
    twice = [node for node, times in Counter(active + dead).items() if times > 1]
    # Both shares of one site would unmask its update alone.
    _require(not twice, "a site must be either active or gone, and be named once")
    _require(
        set(active + dead) == set(state[SHARES_HELD]),
        "the sites named are not those that this site masked its update with",
    )
    _require(state["nid"] in active, "this site must be among the active ones")
    _require(
        len(active) >= int(state[Key.THRESHOLD]),
        f"{len(active)} sites are left, and {state[Key.THRESHOLD]} are needed",
    )


def _hide_weight(content: RecordDict) -> None:
    # Flower sends it in the clear, beside the masked one; its server reads the record, and uses
    # the masked one.
    content.metric_records[f"{FIT_RESULT}.num_examples"] = MetricRecord({"num_examples": 1})


def _integer(configs: ConfigRecord, key: str) -> int:
    value = configs.get(key)
    if type(value) is not int:
        raise CloisterError(f"secure aggregation refused: {key} is no integer")
    return value


def _integers(configs: ConfigRecord, key: str) -> list[int]:
    values = configs.get(key)
    # An empty list has no type, and a list of one type has it throughout.
    if not isinstance(values, Sequence) or any(type(value) is not int for value in values):
        raise CloisterError(f"secure aggregation refused: {key} is no list of integers")
    return list(cast("Sequence[int]", values))


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise CloisterError(f"secure aggregation refused: {otherwise}")
