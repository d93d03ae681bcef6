"""Predictions on encrypted inputs, against the same model in the clear."""

import logging
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fake_service import FakeService, problem
from sklearn.linear_model import LogisticRegression

from cloister_keyholder import EncryptedModel, InvalidAnswer, KeyUnusable, RequestRefused
from cloister_keyholder.encryption.circuit import Query
from cloister_shared.errors import CloisterError
from cloister_shared.links import class_indices
from cloister_shared.preprocessing import to_inputs
from cloister_shared.reference import Reference

Data = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
URL = "http://service.test"


def test_many_classes_equal_the_clear_circuit_bit_by_bit(
    digits: EncryptedModel, digits_reference: Reference, digits_data: Data
) -> None:
    rows = digits_data[0][:12]
    unit = to_inputs(rows, digits.card.data)
    clear = digits_reference.integer_scores(digits_reference.quantise(unit))
    answers = [digits.ask(row).integer_scores for row in digits.quantise(rows)]
    np.testing.assert_array_equal(answers, clear)
    scores = digits_reference.dequantise(clear)
    np.testing.assert_array_equal(digits.decision_function(rows), scores)
    np.testing.assert_array_equal(digits.predict(rows), class_indices(scores))


def test_two_classes_equal_the_clear_circuit_and_are_labelled(
    breast_cancer: EncryptedModel, breast_cancer_reference: Reference, breast_cancer_data: Data
) -> None:
    rows, labels = breast_cancer_data[0][:40], breast_cancer_data[1][:40]
    unit = to_inputs(rows, breast_cancer.card.data)
    quantised = breast_cancer_reference.quantise(unit)
    scores = breast_cancer_reference.dequantise(breast_cancer_reference.integer_scores(quantised))
    found = breast_cancer.decision_function(rows)
    assert found.shape == (40,)
    np.testing.assert_array_equal(found, scores[:, 0])
    assert list(breast_cancer.classes_) == ["malignant", "benign"]
    predicted = breast_cancer.predict(rows)
    assert set(predicted) == {"malignant", "benign"}
    assert np.mean(predicted == labels) >= 0.9


def test_predictions_are_mostly_those_of_scikit_learn(
    digits: EncryptedModel, digits_data: Data
) -> None:
    rows, labels = digits_data
    unit = to_inputs(rows, digits.card.data)
    fitted = LogisticRegression(C=0.1, max_iter=1000).fit(unit, labels)
    encrypted = digits.predict(rows[-40:])
    assert np.mean(encrypted == fitted.predict(unit[-40:])) >= 0.95
    np.testing.assert_allclose(
        digits.predict_proba(rows[-5:]), fitted.predict_proba(unit[-5:]), atol=0.05
    )


@pytest.mark.parametrize("name", ["digits", "breast_cancer"])
def test_probabilities_are_those_of_concrete_ml(name: str, request: pytest.FixtureRequest) -> None:
    from concrete.ml.deployment import FHEModelClient  # noqa: PLC0415 - takes seconds

    model: EncryptedModel = request.getfixturevalue(name)
    folder: Path = request.getfixturevalue(f"{name}_folder")
    rows = request.getfixturevalue(f"{name}_data")[0][:5]
    stock = FHEModelClient(str(folder)).model
    integers = np.vstack([model.ask(row).integer_scores for row in model.quantise(rows)])
    expected = stock.post_processing(stock.dequantize_output(integers))
    found = model.predict_proba(rows)
    assert found.shape == (5, len(model.classes_))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.sum(axis=1), 1)


@pytest.mark.parametrize(
    "make", [np.asfortranarray, np.ndarray[Any, Any].tolist, lambda a: a[:, ::-1].copy()[:, ::-1]]
)
def test_the_layout_of_rows_does_not_matter(
    make: Any, digits: EncryptedModel, digits_data: Data
) -> None:
    rows = digits_data[0][:3]
    np.testing.assert_array_equal(
        digits.decision_function(make(rows)), digits.decision_function(rows)
    )


def test_a_strided_row_is_encrypted_as_it_reads(
    digits: EncryptedModel, digits_service: FakeService, digits_reference: Reference
) -> None:
    backwards = np.arange(len(digits_reference.features), dtype=np.int64)[::-1]
    query = digits.encrypt(backwards)
    np.testing.assert_array_equal(
        query.decrypt(digits_service.run(query.ciphertext)),
        digits_reference.integer_scores(backwards[None, :])[0],
    )


def test_no_rows_give_no_predictions(digits: EncryptedModel, breast_cancer: EncryptedModel) -> None:
    assert digits.predict(np.empty((0, 64))).shape == (0,)
    assert digits.predict_proba(np.empty((0, 64))).shape == (0, 10)
    assert breast_cancer.decision_function(np.empty((0, 30))).shape == (0,)


def test_values_out_of_bounds_are_refused_before_anything_is_sent(
    digits: EncryptedModel, digits_service: FakeService, digits_data: Data
) -> None:
    rows = digits_data[0][:2].copy()
    rows[1, 5] = 17
    sent = len(digits_service.requests)
    with pytest.raises(CloisterError, match=r"row 1, feature pixel_0_5"):
        digits.predict(rows)
    assert len(digits_service.requests) == sent


def test_values_out_of_bounds_are_clipped_if_asked(
    digits: EncryptedModel, digits_service: FakeService, digits_data: Data
) -> None:
    at_bound, beyond = digits_data[0][:1].copy(), digits_data[0][:1].copy()
    at_bound[0, 5], beyond[0, 5] = 16, 1000
    with EncryptedModel(
        URL, "digits", transport=digits_service.transport, out_of_bounds="clip"
    ) as clipping:
        np.testing.assert_array_equal(
            clipping.decision_function(beyond), digits.decision_function(at_bound)
        )


def test_every_query_has_its_own_key(
    digits: EncryptedModel, digits_service: FakeService, digits_data: Data
) -> None:
    row = digits.quantise(digits_data[0][:1])[0]
    first, second = digits.encrypt(row), digits.encrypt(row)
    assert first.key.export() != second.key.export()
    assert first.ciphertext != second.ciphertext
    first_result, second_result = (digits_service.run(q.ciphertext) for q in (first, second))
    crossed = Query(first.ciphertext, digits.read_key(first.key.export()))
    expected = first.decrypt(first_result)
    np.testing.assert_array_equal(second.decrypt(second_result), expected)
    assert not np.array_equal(crossed.decrypt(second_result), expected)


def test_predict_sends_every_row_under_another_key(
    digits: EncryptedModel, digits_service: FakeService, digits_data: Data
) -> None:
    digits.predict(np.repeat(digits_data[0][:1], 3, axis=0))
    bodies = [request.content for request in digits_service.requests if request.method == "POST"]
    assert len(set(bodies)) == 3


def test_a_key_opens_one_result(
    digits: EncryptedModel, digits_service: FakeService, digits_data: Data
) -> None:
    query = digits.encrypt(digits.quantise(digits_data[0][:1])[0])
    result = digits_service.run(query.ciphertext)
    query.decrypt(result)
    with pytest.raises(KeyUnusable):
        query.decrypt(result)
    with pytest.raises(KeyUnusable):
        query.key.export()


def test_the_version_is_pinned_and_named_in_every_query(
    digits: EncryptedModel, digits_service: FakeService, digits_data: Data
) -> None:
    digits_service.current = "2"
    digits.predict(digits_data[0][:1])
    sent = digits_service.requests[-1]
    assert sent.url.path == "/v2/models/digits/versions/1/infer"
    assert sent.headers["Cloister-Client-Digest"] == digits_service.details.client_digest


def test_nothing_but_ciphertexts_is_sent_or_logged(
    digits: EncryptedModel,
    digits_service: FakeService,
    digits_data: Data,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="cloister_keyholder")
    digits.predict_proba(digits_data[0][:2])
    sizes = [len(request.content) for request in digits_service.requests]
    assert sizes == [0, 0, *[digits_service.details.circuit.input_bytes] * 2]
    assert not caplog.records


def test_a_stated_version_is_opened(digits_service: FakeService) -> None:
    with EncryptedModel(URL, "digits", version=1, transport=digits_service.transport) as model:
        assert model.description.version == 1
    assert digits_service.requests[0].url.path == "/v2/models/digits/versions/1"
    digits_service.current = "2"
    with pytest.raises(InvalidAnswer, match="version 1"):
        EncryptedModel(URL, "digits", version=1, transport=digits_service.transport)


def test_an_unknown_model_is_refused(digits_service: FakeService) -> None:
    with pytest.raises(RequestRefused) as caught:
        EncryptedModel(URL, "nothing", transport=digits_service.transport)
    assert caught.value.status == 404


def test_a_conflict_says_what_the_service_says(
    digits: EncryptedModel, digits_service: FakeService, digits_data: Data
) -> None:
    digits_service.client_zip += b"another"
    with pytest.raises(RequestRefused, match="encrypted for another client") as caught:
        digits.predict(digits_data[0][:1])
    assert caught.value.status == 409


def test_a_query_is_repeated_while_the_service_is_busy(
    digits: EncryptedModel, digits_service: FakeService, digits_data: Data
) -> None:
    digits_service.interceptors = [lambda _: problem(503, "busy", **{"Retry-After": "0"})]
    assert digits.predict(digits_data[0][:1]) == digits_data[1][:1]
    first, second = digits_service.requests[-2:]
    assert first.content == second.content


@pytest.mark.parametrize("body", [b"", b"[]", b'{"name": "digits"}', b"<html>"])
def test_another_program_at_the_address_is_noticed(
    body: bytes, digits_service: FakeService
) -> None:
    digits_service.interceptors = [lambda _: httpx.Response(200, content=body)]
    with pytest.raises(InvalidAnswer, match="Cloister's inference service"):
        EncryptedModel(URL, "digits", transport=digits_service.transport)
