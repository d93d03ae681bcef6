"""Weights as Flower's records and messages."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MessageType, MetricRecord, RecordDict

from cloister_shared import flower
from cloister_shared.models import Model, boosted, from_arrays, linear, to_arrays
from cloister_shared.standardising import Moments
from cloister_shared.sums import Sums
from cloister_shared.trees import Trees
from cloister_shared.weights import LinearWeights

REASON_LENGTH = 300
"""Characters of a site's words that are told."""
REASONS = 3
"""Different reasons that one message tells."""


def to_record(model: Model) -> ArrayRecord:
    """Return the record that carries this model."""
    return ArrayRecord({name: Array(array) for name, array in to_arrays(model).items()})


def to_model(record: ArrayRecord) -> Model:
    """Return the model that a record carries.

    Raises:
        KeyError: an array is missing.
        TypeError: an array holds something else than real numbers, or integers where it must.
        ValueError: an array's bytes are damaged.
    """
    return from_arrays({name: array.numpy() for name, array in record.items()})


def to_weights(record: ArrayRecord) -> LinearWeights:
    """Return the weights that a record carries; raises as ``to_model``."""
    return linear(to_model(record))


def to_sums(record: ArrayRecord) -> Sums:
    """Return the sums that a record carries; raises as ``to_model``."""
    return Sums(record[flower.SUMS].numpy().astype(np.float64, casting="same_kind"))


def to_moments(record: ArrayRecord) -> Moments:
    """Return the moments that a record carries; raises as ``to_model``."""
    return Moments(record[flower.MOMENTS].numpy().astype(np.float64, casting="same_kind"))


def sums_of(reply: Message) -> Sums:
    """Return the sums that a valid reply carries."""
    return to_sums(reply.content.array_records[flower.ARRAYS])


def moments_of(reply: Message) -> Moments:
    """Return the moments that a valid reply carries."""
    return to_moments(reply.content.array_records[flower.ARRAYS])


def weights_of(reply: Message) -> LinearWeights:
    """Return the weights that a valid reply carries."""
    return to_weights(reply.content.array_records[flower.ARRAYS])


def trees_of(reply: Message) -> Trees:
    """Return the boosted trees that a valid reply carries."""
    return boosted(to_model(reply.content.array_records[flower.ARRAYS]))


def mean_weights(replies: Sequence[Message]) -> LinearWeights:
    """Return the mean of the weights in valid replies, every one counting the same."""
    each = [weights_of(reply) for reply in replies]
    return LinearWeights(
        np.mean([weights.coef for weights in each], axis=0),
        np.mean([weights.intercept for weights in each], axis=0),
    )


def synthetic_reply(found: LinearWeights | Sums, examples: int = 1) -> Message:
    """Return a reply as a site's: for a mean, or a total, the only one that is to be aggregated."""
    asked = Message(RecordDict(), dst_node_id=0, message_type=MessageType.TRAIN)
    content = RecordDict(
        {
            flower.ARRAYS: to_record(found)
            if isinstance(found, LinearWeights)
            else ArrayRecord({flower.SUMS: Array(found.gram)}),
            flower.METRICS: MetricRecord({flower.EXAMPLES: examples}),
        }
    )
    return Message(content, reply_to=asked)


def told_reason(reply: Message) -> str:
    """Return a site's own words of why it failed, fit for one line of a log.

    They come from a site that may be hostile: no line breaks, no control characters, and no more
    than ``REASON_LENGTH`` of them.
    """
    words = (reply.error.reason or "")[:REASON_LENGTH]
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)
    return shown or f"error {reply.error.code}"


def told_reasons(reasons: Iterable[str]) -> str:
    """Return why replies cannot be used, each reason once, the commonest first, to end a sentence.

    Args:
        reasons: one a site.
    """
    counted = Counter(reasons).most_common(REASONS)
    told = [f"{reason} ({sites} {'site' if sites == 1 else 'sites'})" for reason, sites in counted]
    return f"; why: {'; '.join(told)}" if told else ""
