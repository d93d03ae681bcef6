"""What a reply in secure aggregation must be, so that one site's nonsense loses that site alone."""

from collections.abc import Sequence
from typing import cast

import numpy as np
from flwr.app import ConfigRecord, Message
from flwr.common import bytes_to_ndarray
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.supercore.primitives.asymmetric import bytes_to_public_key

from cloister_shared.errors import CloisterError
from cloister_shared.secure_aggregation import MODULUS
from cloister_trainer.records import told_reason

SHARE_BYTES = 1 << 12
"""No share or ciphertext is as long: the longest is of a private key in PEM, below 400 bytes."""


def why_invalid(
    reply: Message, asked: Message | None, shapes: Sequence[tuple[int, ...]]
) -> str | None:
    """Return why a reply cannot be used, or None.

    Args:
        reply: from a site.
        asked: what the site was sent in this stage, if anything.
        shapes: of the arrays that it masks, without the weight before them.
    """
    if reply.has_error():
        return told_reason(reply)
    if asked is None:
        return "it was not asked"
    try:
        answer = reply.content.config_records[RECORD_KEY_CONFIGS]
        question = asked.content.config_records[RECORD_KEY_CONFIGS]
        stage = question[Key.STAGE]
        if stage == Stage.SETUP:
            _check_keys(answer)
        elif stage == Stage.SHARE_KEYS:
            others = {int(key) for key in question if key != Key.STAGE}
            _check_shares(answer, others - {reply.metadata.src_node_id})
        elif stage == Stage.COLLECT_MASKED_VECTORS:
            _check_vectors(answer, [(1,), *shapes])
        else:
            _check_unmasking(answer, question)
    except Exception as error:  # noqa: BLE001 - a site can send anything, and fails alone
        return str(error) or type(error).__name__
    return None


def _check_keys(answer: ConfigRecord) -> None:
    for key in (Key.PUBLIC_KEY_1, Key.PUBLIC_KEY_2):
        public = bytes_to_public_key(cast("bytes", answer[key]))
        # The others would fail with any other, whatever its kind.
        if getattr(getattr(public, "curve", None), "name", "") != "secp384r1":
            raise CloisterError("its public key is not one of the curve P-384")


def _check_shares(answer: ConfigRecord, others: set[int]) -> None:
    destinations = cast("list[int]", answer[Key.DESTINATION_LIST])
    if len(destinations) != len(others) or set(destinations) != others:
        raise CloisterError("its shares are not for every other site once")
    _check_bytes(answer[Key.CIPHERTEXT_LIST], len(others))


def _check_vectors(answer: ConfigRecord, shapes: list[tuple[int, ...]]) -> None:
    arrays = [
        bytes_to_ndarray(array) for array in cast("list[bytes]", answer[Key.MASKED_PARAMETERS])
    ]
    if [array.shape for array in arrays] != shapes or any(a.dtype != np.int64 for a in arrays):
        raise CloisterError("its masked update has not the form of the model")
    if any((array < 0).any() or (array >= MODULUS).any() for array in arrays):
        raise CloisterError("its masked update is not reduced by the modulus")


def _check_unmasking(answer: ConfigRecord, question: ConfigRecord) -> None:
    active = cast("list[int]", question[Key.ACTIVE_NODE_ID_LIST])
    gone = cast("list[int]", question[Key.DEAD_NODE_ID_LIST])
    if list(cast("list[int]", answer[Key.NODE_ID_LIST])) != [*active, *gone]:
        raise CloisterError("its shares are not of the sites that were asked for")
    _check_bytes(answer[Key.SHARE_LIST], len(active) + len(gone))


def _check_bytes(values: object, number: int) -> None:
    if (
        not isinstance(values, list)
        or len(values) != number
        or not all(isinstance(value, bytes) and len(value) < SHARE_BYTES for value in values)
    ):
        raise CloisterError("its shares are not as many as were asked for, or not bytes")
