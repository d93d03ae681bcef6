"""Evaluates held-out samples encrypted, beside the same model in the clear."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from cloister_keyholder.evaluating.mistakes import (
    FEWEST_FOR_DECILES,
    Confusion,
    ErrorDeciles,
    deciles,
)
from cloister_keyholder.evaluating.parts import Part
from cloister_keyholder.evaluating.samples import HeldOut
from cloister_keyholder.model import EncryptedModel
from cloister_keyholder.querying.pipeline import Answer
from cloister_shared.links import class_indices

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Answers = Floats | Integers
"""Positions of classes, or values of a regression, shape (n,)."""

NOT_PUBLISHED = (
    "the service publishes no reference for this version (the compiler's setting "
    "CLOISTER_PUBLISH_REFERENCE), so encrypted results have nothing to be compared with"
)
LIBRARIES = {
    "native": ("cloister-keyholder", "cloister-lwe", "numpy"),
    "concrete": ("cloister-keyholder", "concrete-python", "numpy"),
}
"""By what made keys, encrypted and decrypted."""


class Milliseconds(Part):
    """How a duration was distributed over the evaluated samples."""

    median: float
    mean: float
    p95: float
    maximum: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Summarise durations in milliseconds; there must be at least one."""
        return cls(
            median=float(np.median(values)),
            mean=float(np.mean(values)),
            p95=float(np.percentile(values, 95)),
            maximum=float(np.max(values)),
        )


class Timings(Part):
    """Where the time of one prediction goes; many are under way at a time."""

    encrypt: Milliseconds
    """Key generation and encryption, on one core."""
    request: Milliseconds
    """Of the request that carried the prediction, with all others in it: from sending it to holding
    its whole answer, with network, queueing and every ``server``. It counts once a prediction."""
    server: Milliseconds | None
    """Encrypted evaluation on one core: what the service states for a request, divided by the
    predictions in it; None where it states nothing."""
    decrypt: Milliseconds


class Throughput(Part):
    """How fast all predictions together were."""

    seconds: float
    """Wall time from the first encryption to the last decryption, with the start of processes."""
    predictions_per_second: float
    requests: int
    """That carried them."""


class Scores(Part):
    """How well three executions predict the same samples, by one measure."""

    samples: int
    float_model: float
    """The trained model, before it was quantised."""
    clear_quantised: float
    """The quantised integers, not encrypted."""
    encrypted: float | None
    """Real encrypted execution; None for samples that were not sent."""


class Agreement(Part):
    """How often encrypted execution gave what the same integers give in the clear."""

    samples: int
    equal_scores: int
    """Samples whose integer scores are all equal."""
    equal_predictions: int


class EvaluationReport(Part):
    """What ``keyholder evaluate`` found. It stays with the key holder."""

    model: str
    version: int
    client_digest: str
    client: str
    """What made keys, encrypted and decrypted: ``native`` or ``concrete``."""
    dataset: str
    held_out: int
    """Samples in the held-out set."""
    evaluated: int
    """The first of them, which went through encryption."""
    score: Literal["accuracy", "R2"]
    """What the three below are, as scikit-learn scores: the share of right predictions, or the
    coefficient of determination of a regression."""
    encrypted_score: float
    scores: Scores | None
    """Of the evaluated samples; None without a reference."""
    reference_scores: Scores | None
    """Of all held-out samples, in the clear only; None without a reference."""
    absolute_errors: Scores | None
    """Mean absolute errors of the evaluated samples, in the unit of the target; None without a
    reference, and for a classification."""
    agreement: Agreement | None
    """None without a reference."""
    without_reference: str | None
    """Why there is nothing to compare with, where that is so."""
    bytes_up: int
    """Length of a query's ciphertext."""
    bytes_down: int
    """Length of a query's encrypted result."""
    milliseconds: Timings
    throughput: Throughput
    # What follows is missing in reports of earlier releases.
    evaluator: str | None = None
    """What evaluated: ``native`` or ``concrete``; None where the service does not say."""
    evaluated_at: datetime | None = None
    """When the last answer was there, in UTC."""
    confusion: Confusion | None = None
    """Of the evaluated samples; None for a regression."""
    error_deciles: ErrorDeciles | None = None
    """Of the evaluated samples; None for a classification, and for fewer than
    ``FEWEST_FOR_DECILES``."""
    libraries: dict[str, str] = Field(default_factory=dict)
    """Versions of what evaluated here, by name."""

    @property
    def differing(self) -> int:
        """Samples with other scores under encryption than in the clear; 0 if not compared."""
        return self.agreement.samples - self.agreement.equal_scores if self.agreement else 0


@dataclass(frozen=True)
class _InTheClear:
    """What the published reference says of samples."""

    integers: Integers
    """Scores, shape (n, n_outputs)."""
    float_model: Answers
    """What the trained model predicts, shape (n,)."""
    quantised: Answers
    """What the integers predict, shape (n,)."""

    def first(self, samples: int) -> Self:
        """Return it of the first samples alone."""
        return replace(
            self,
            integers=self.integers[:samples],
            float_model=self.float_model[:samples],
            quantised=self.quantised[:samples],
        )


def evaluate(
    model: EncryptedModel,
    held_out: HeldOut,
    samples: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> EvaluationReport:
    """Evaluate the first samples encrypted, a query each.

    Args:
        model: to query.
        held_out: the samples; they must fit the model.
        samples: how many of them to evaluate; 0, or more than there are, means all.
        progress: called with the number of samples done and to do.

    Raises:
        CloisterError: the samples do not fit the model, or a query fails.
    """
    held_out.check_fits(model.card.data)
    clear = _in_the_clear(model, held_out)
    total = min(samples, len(held_out.rows)) if samples else len(held_out.rows)
    quantised = model.quantise(held_out.rows[:total])
    answers: list[Answer] = []
    start = time.perf_counter()
    for answer in model.ask_all(quantised):
        answers.append(answer)
        progress(len(answers), total)
    seconds = time.perf_counter() - start
    scores = np.vstack([answer.integer_scores for answer in answers])
    predicted = _predicted(model, model.dequantise(scores))
    regression = model.card.data.task == "regression"
    score = _r2 if regression else _accuracy
    labels = held_out.answers[:total]
    first = clear and clear.first(total)
    return EvaluationReport(
        model=model.name,
        version=model.description.version,
        client_digest=model.description.client_digest,
        client=model.client,
        dataset=held_out.schema.dataset,
        held_out=len(held_out.rows),
        evaluated=total,
        score="R2" if regression else "accuracy",
        encrypted_score=score(predicted, labels),
        scores=first and _scores(first, labels, score, predicted),
        reference_scores=clear and _scores(clear, held_out.answers, score, None),
        absolute_errors=first and _scores(first, labels, _absolute_error, predicted)
        if regression
        else None,
        agreement=first and _agreement(first, scores, predicted),
        without_reference=None if clear else NOT_PUBLISHED,
        bytes_up=max(answer.bytes_up for answer in answers),
        bytes_down=max(answer.bytes_down for answer in answers),
        milliseconds=_timings(answers),
        throughput=Throughput(
            seconds=seconds,
            predictions_per_second=total / seconds,
            # Each prediction has its share of one.
            requests=round(sum(1 / answer.queries for answer in answers)),
        ),
        evaluator=model.description.evaluator,
        evaluated_at=datetime.now(UTC),
        confusion=None if regression else _confusion(predicted, labels, first),
        error_deciles=_error_deciles(predicted, labels, first) if regression else None,
        libraries={name: version(name) for name in LIBRARIES[model.client]},
    )


def _predicted(model: EncryptedModel, scores: Floats) -> Answers:
    """Turn scores, shape (n, n_outputs), into positions of classes or values, shape (n,)."""
    if model.card.data.task == "regression":
        return model.answers(scores).astype(np.float64)
    return class_indices(scores)


def _accuracy(predicted: Answers, answers: Answers) -> float:
    return float(np.mean(predicted == answers))


def _r2(predicted: Answers, answers: Answers) -> float:
    """Return the coefficient of determination; where all answers are one, 1 or 0."""
    residual = float(((answers - predicted) ** 2).sum())
    total = float(((answers - answers.mean()) ** 2).sum())
    return 1.0 - residual / total if total > 0 else float(residual == 0)


def _absolute_error(predicted: Answers, answers: Answers) -> float:
    return float(np.abs(answers - predicted).mean())


def _in_the_clear(model: EncryptedModel, held_out: HeldOut) -> _InTheClear | None:
    reference = model.reference()
    if reference is None:
        return None
    unit = model.scale(held_out.rows)
    integers = reference.integer_scores(reference.quantise(unit))
    return _InTheClear(
        integers,
        _predicted(model, reference.float_scores(unit)),
        _predicted(model, reference.dequantise(integers)),
    )


def _scores(
    clear: _InTheClear,
    answers: Answers,
    score: Callable[[Answers, Answers], float],
    encrypted: Answers | None,
) -> Scores:
    return Scores(
        samples=len(answers),
        float_model=score(clear.float_model, answers),
        clear_quantised=score(clear.quantised, answers),
        encrypted=None if encrypted is None else score(encrypted, answers),
    )


def _agreement(clear: _InTheClear, scores: Integers, predicted: Answers) -> Agreement:
    return Agreement(
        samples=len(scores),
        equal_scores=int((scores == clear.integers).all(axis=1).sum()),
        equal_predictions=int((predicted == clear.quantised).sum()),
    )


def _confusion(predicted: Answers, labels: Answers, clear: _InTheClear | None) -> Confusion:
    return Confusion.of(
        predicted.astype(np.int64),
        labels.astype(np.int64),
        clear.quantised.astype(np.int64) if clear else None,
    )


def _error_deciles(
    predicted: Answers, targets: Answers, clear: _InTheClear | None
) -> ErrorDeciles | None:
    if len(targets) < FEWEST_FOR_DECILES:
        return None
    return ErrorDeciles(
        float_model=clear and deciles(clear.float_model, targets),
        clear_quantised=clear and deciles(clear.quantised, targets),
        encrypted=deciles(predicted, targets),
    )


def _timings(answers: Sequence[Answer]) -> Timings:
    server = [answer.server_ms for answer in answers if answer.server_ms is not None]
    return Timings(
        encrypt=Milliseconds.of([answer.encrypt_ms for answer in answers]),
        request=Milliseconds.of([answer.request_ms for answer in answers]),
        server=Milliseconds.of(server) if server else None,
        decrypt=Milliseconds.of([answer.decrypt_ms for answer in answers]),
    )
