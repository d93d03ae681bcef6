"""One row after another: encrypted, sent, decrypted, and compared with the clear."""

import base64
import math
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cloister_keyholder.model import EncryptedModel
from cloister_keyholder.querying.pipeline import Answer
from cloister_keyholder.serving.messages import (
    HEAD_BYTES,
    Cell,
    Clear,
    Milliseconds,
    Outcome,
    Prediction,
    Sent,
    finite,
)
from cloister_keyholder.serving.models import OpenModel
from cloister_keyholder.serving.recording import last_ciphertext
from cloister_shared.digests import digest_bytes
from cloister_shared.links import has_probabilities
from cloister_shared.reference import ClearCircuit

Floats = npt.NDArray[np.float64]


def predict(model: OpenModel, rows: Sequence[Sequence[Cell]]) -> list[Prediction]:
    """Return the answers to rows of raw values, each of which is a request.

    Raises:
        CloisterError: as ``EncryptedModel.predict``; no row is sent where one does not fit.
    """
    encrypted = model.encrypted
    unit, quantised = encrypted.scale(rows), encrypted.quantise(rows)
    reference = model.reference()
    predictions = []
    for one, integers in zip(unit, quantised, strict=True):
        start = time.perf_counter()
        answer = encrypted.ask(integers)
        total_ms = 1000 * (time.perf_counter() - start)
        scores = encrypted.dequantise(answer.integer_scores[None, :])
        predictions.append(
            Prediction(
                **_outcome(encrypted, scores).model_dump(),
                sent=_sent(answer, last_ciphertext()),
                milliseconds=_milliseconds(answer, total_ms),
                clear=_clear(encrypted, reference, one[None, :], answer) if reference else None,
            )
        )
    return predictions


def _outcome(encrypted: EncryptedModel, scores: Floats) -> Outcome:
    """Say what scores of shape (1, n_outputs) mean."""
    (found,) = encrypted.answers(scores).tolist()
    is_regression = encrypted.card.data.task == "regression"
    return Outcome(
        label=None if is_regression else found,
        value=found if is_regression and math.isfinite(found) else None,
        probabilities=encrypted.probabilities(scores)[0].tolist()
        if has_probabilities(encrypted.link)
        else None,
        scores=finite(scores[0].tolist()),
    )


def _sent(answer: Answer, ciphertext: bytes) -> Sent:
    return Sent(
        bytes_up=answer.bytes_up,
        bytes_down=answer.bytes_down,
        sha256=digest_bytes(ciphertext),
        head=base64.b64encode(ciphertext[:HEAD_BYTES]).decode(),
    )


def _milliseconds(answer: Answer, total_ms: float) -> Milliseconds:
    known = answer.encrypt_ms + answer.request_ms + answer.decrypt_ms
    return Milliseconds(
        preparing=max(0.0, total_ms - known),
        encrypt=answer.encrypt_ms,
        network=max(0.0, answer.request_ms - (answer.server_ms or 0.0)),
        evaluate=answer.server_ms,
        decrypt=answer.decrypt_ms,
    )


def _clear(
    encrypted: EncryptedModel, reference: ClearCircuit, unit: Floats, answer: Answer
) -> Clear:
    integers = reference.integer_scores(reference.quantise(unit))
    return Clear(
        quantised=_outcome(encrypted, reference.dequantise(integers)),
        float_model=_outcome(encrypted, reference.float_scores(unit)),
        equal=bool(np.array_equal(integers[0], answer.integer_scores)),
    )
