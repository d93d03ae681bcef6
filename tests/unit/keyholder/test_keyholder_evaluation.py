"""Accuracy, agreement and timings of an evaluation."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from fake_service import FakeService
from rich.console import Console

from cloister_keyholder import EncryptedModel, InvalidSamples
from cloister_keyholder.evaluating.evaluation import EvaluationReport, Milliseconds, evaluate
from cloister_keyholder.evaluating.mistakes import Pair, deciles
from cloister_keyholder.evaluating.report import render
from cloister_keyholder.evaluating.samples import HeldOut
from cloister_shared.preprocessing import to_inputs
from cloister_shared.reference import Reference
from cloister_shared.schema import DatasetSchema

Data = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


@pytest.fixture
def held_out(digits: EncryptedModel, digits_data: Data) -> HeldOut:
    """100 samples, the first 10 of which have wrong labels."""
    labels = digits_data[1][:100].copy()
    labels[:10] = (labels[:10] + 1) % 10
    return HeldOut(digits.card.data, digits_data[0][:100], labels)


def shown(report: EvaluationReport) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(render(report))
    return capture.get()


def test_the_first_samples_are_evaluated_and_compared(
    digits: EncryptedModel,
    digits_service: FakeService,
    digits_reference: Reference,
    held_out: HeldOut,
) -> None:
    seen: list[tuple[int, int]] = []
    report = evaluate(digits, held_out, 20, lambda done, total: seen.append((done, total)))
    assert seen == [(i, 20) for i in range(1, 21)]
    unit = to_inputs(held_out.rows, held_out.schema)
    predicted = digits_reference.float_scores(unit).argmax(axis=1)
    right = predicted == held_out.answers
    assert report.evaluated == 20
    assert report.held_out == 100
    assert report.scores
    assert report.reference_scores
    assert report.scores.float_model == pytest.approx(right[:20].mean())
    assert report.reference_scores.float_model == pytest.approx(right.mean())
    assert report.scores.samples == 20
    assert report.reference_scores.samples == 100
    assert report.reference_scores.encrypted is None
    assert 0.4 <= report.encrypted_score <= 0.5
    assert report.scores.encrypted == report.encrypted_score
    assert report.scores.clear_quantised == report.encrypted_score
    assert report.agreement
    assert report.agreement.model_dump() == {
        "samples": 20,
        "equal_scores": 20,
        "equal_predictions": 20,
    }
    assert report.differing == 0
    assert report.without_reference is None
    assert report.bytes_up == digits_service.details.circuit.input_bytes
    assert report.bytes_down == digits_service.details.circuit.output_bytes
    assert report.milliseconds.server == Milliseconds(median=1.5, mean=1.5, p95=1.5, maximum=1.5)
    assert report.milliseconds.encrypt.median > 0
    speed = report.throughput
    assert speed.predictions_per_second == pytest.approx(20 / speed.seconds)
    sent = [r for r in digits_service.requests if r.method == "POST"]
    assert speed.requests == len(sent) < 20
    assert f"in {speed.requests} requests" in shown(report)
    assert EvaluationReport.model_validate_json(report.model_dump_json()) == report
    assert "20 of 20" in shown(report)


@pytest.mark.parametrize(("samples", "evaluated"), [(0, 12), (12, 12), (50, 12), (5, 5)])
def test_how_many_are_evaluated(
    samples: int, evaluated: int, digits: EncryptedModel, held_out: HeldOut
) -> None:
    few = HeldOut(held_out.schema, held_out.rows[:12], held_out.answers[:12])
    assert evaluate(digits, few, samples).evaluated == evaluated


def test_a_wrong_prediction_is_counted(
    digits: EncryptedModel, digits_service: FakeService, held_out: HeldOut
) -> None:
    honest, count = digits_service.run, 0

    def cheat(ciphertext: bytes) -> bytes:
        nonlocal count
        count += 1
        result = bytearray(honest(ciphertext))
        if count == 2:
            # The body of the first class's score: its top bits say another number.
            position = 64 + 8 * digits_service.details.circuit.lwe_dimension + 7
            result[position] ^= 0x40
        return bytes(result)

    digits_service.run = cheat  # type: ignore[method-assign]  # stands for a dishonest service
    report = evaluate(digits, held_out, 5)
    assert report.agreement
    assert report.agreement.equal_scores == 4
    assert report.agreement.equal_predictions in (4, 5)
    assert report.differing == 1


def test_without_a_reference_there_is_a_reason(
    digits: EncryptedModel, digits_service: FakeService, held_out: HeldOut
) -> None:
    digits_service.publish_reference = False
    report = evaluate(digits, held_out, 3)
    assert report.scores is None
    assert report.reference_scores is None
    assert report.agreement is None
    assert report.differing == 0
    assert "CLOISTER_PUBLISH_REFERENCE" in (report.without_reference or "")
    assert "CLOISTER_PUBLISH_REFERENCE" in shown(report)


def test_a_service_that_does_not_time_itself(
    digits: EncryptedModel, digits_service: FakeService, held_out: HeldOut
) -> None:
    answer = digits_service._infer

    def untimed(request: object) -> object:
        response = answer(request)  # type: ignore[arg-type]  # passed through
        del response.headers["Server-Timing"]
        return response

    digits_service._infer = untimed  # type: ignore[assignment,method-assign]  # for this test alone
    assert evaluate(digits, held_out, 2).milliseconds.server is None


def test_samples_of_another_schema_are_not_sent(
    digits: EncryptedModel, digits_service: FakeService, held_out: HeldOut
) -> None:
    other = DatasetSchema(**{**held_out.schema.model_dump(), "dataset": "other"})
    sent = len(digits_service.requests)
    with pytest.raises(InvalidSamples):
        evaluate(digits, HeldOut(other, held_out.rows, held_out.answers), 3)
    assert len(digits_service.requests) == sent


def test_scores_do_not_leave_the_machine(
    digits: EncryptedModel, digits_service: FakeService, held_out: HeldOut
) -> None:
    evaluate(digits, held_out, 3)
    sent = [(request.method, request.url.path) for request in digits_service.requests]
    root = "/v2/models/digits"
    # Three rows are too few to share requests.
    assert sent == [
        ("GET", root),
        ("GET", f"{root}/versions/1/client"),
        ("GET", f"{root}/versions/1/reference"),
        *[("POST", f"{root}/versions/1/infer")] * 3,
    ]


def test_what_was_taken_for_what_is_counted(
    digits: EncryptedModel,
    digits_service: FakeService,
    digits_reference: Reference,
    held_out: HeldOut,
) -> None:
    report = evaluate(digits, held_out, 20)
    unit = to_inputs(held_out.rows[:20], held_out.schema)
    integers = digits_reference.integer_scores(digits_reference.quantise(unit))
    predicted = digits_reference.dequantise(integers).argmax(axis=1)
    assert report.confusion
    assert report.confusion.clear_quantised

    def counts(pairs: tuple[Pair, ...]) -> dict[tuple[int, int], int]:
        return {(one.expected, one.predicted): one.samples for one in pairs}

    labels = zip(held_out.answers[:20].tolist(), predicted.tolist(), strict=True)
    assert counts(report.confusion.labels) == Counter(labels)
    clear = zip(predicted.tolist(), predicted.tolist(), strict=True)
    assert counts(report.confusion.clear_quantised) == Counter(clear)
    assert report.error_deciles is None
    digits_service.publish_reference = False
    report = evaluate(digits, held_out, 3)
    assert report.confusion
    assert report.confusion.clear_quantised is None
    assert sum(one.samples for one in report.confusion.labels) == 3


def test_the_service_says_what_evaluates(digits_service: FakeService, held_out: HeldOut) -> None:
    said = digits_service.metadata()
    said["parameters"]["evaluator"] = "native"
    digits_service.metadata = lambda: said  # type: ignore[method-assign]  # one that says more
    with EncryptedModel("http://service.test", "digits", transport=digits_service.transport) as one:
        report = evaluate(one, held_out, 2)
    assert report.evaluator == "native"
    assert report.client == "native"
    assert set(report.libraries) == {"cloister-keyholder", "cloister-lwe", "numpy"}
    assert report.evaluated_at
    assert report.evaluated_at.tzinfo is not None


def test_deciles_of_errors_are_numbers_where_there_are_any() -> None:
    answers = np.arange(21.0)
    assert deciles(np.zeros(21), answers) == tuple(range(2, 20, 2))
    overflowing = np.where(answers > 11, np.inf, 0.0)
    assert deciles(overflowing, answers) == (2, 4, 6, 8, 10, *(None,) * 4)


def test_durations_are_summarised() -> None:
    found = Milliseconds.of([float(i) for i in range(1, 101)])
    assert found.median == 50.5
    assert found.mean == 50.5
    assert found.p95 == pytest.approx(95.05)
    assert found.maximum == 100
