"""Whole predictions against the running service: the Python SDK's answers."""

import base64
import hashlib
import math
from typing import Any

import httpx
import numpy as np
import pytest
from javascript import JavaScript, JavaScriptError
from models import COSTS, STAINS

from cloister_keyholder import EncryptedModel

Data = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def rows_of(name: str, digits: Data, breast_cancer: Data) -> list[Any]:
    rng = np.random.default_rng(7)
    match name:
        case "digits":
            return list(digits[0][::180].tolist())
        case "breast_cancer":
            return list(breast_cancer[0][::57].tolist())
        case "stains":
            # Beyond the bounds, which this model's card has clipped.
            return list(rng.uniform(-20, 280, (10, STAINS.n_features)).tolist())
        case "costs":
            return list(rng.uniform(0, 10, (10, COSTS.n_features)).tolist())
    ages, doses = rng.uniform(0, 110, 9).tolist(), rng.uniform(-1.5, 2.5, 9).tolist()
    wards, sexes = ("north", "south", 7, "7.0", "", None), ("f", "m", "other")
    return [
        [str(age) if i % 2 else None, wards[i % 6], dose, sexes[i % 3]]
        for i, (age, dose) in enumerate(zip(ages, doses, strict=True))
    ]


@pytest.mark.parametrize("name", ["digits", "breast_cancer", "visits", "stains", "costs"])
def test_the_page_and_the_sdk_answer_the_same(
    javascript: JavaScript, url: str, name: str, digits_data: Data, breast_cancer_data: Data
) -> None:
    rows = rows_of(name, digits_data, breast_cancer_data)
    found = javascript("predict", url=url, model=name, rows=rows, options={})
    with EncryptedModel(url, name) as model:
        answers = model.predict(rows).tolist()
        if name == "costs":
            assert [one["label"] for one in found] == [None] * len(rows)
            np.testing.assert_allclose([one["value"] for one in found], answers, rtol=1e-15)
            return
        assert [one["label"] for one in found] == answers
        assert len(set(answers)) > 1
        scores = model.decision_function(rows).reshape(len(rows), -1).tolist()
        assert [one["scores"] for one in found] == scores
        np.testing.assert_allclose(
            [one["probabilities"] for one in found], model.predict_proba(rows), rtol=1e-14
        )


def test_a_version_can_be_named(javascript: JavaScript, url: str, digits_data: Data) -> None:
    row = digits_data[0][0].tolist()
    (found,) = javascript("predict", url=url, model="digits", rows=[row], options={"version": "1"})
    assert found["label"] == 0


@pytest.mark.parametrize(
    ("name", "row", "error", "why"),
    [
        ("no-such-model", [], "RequestRefused", "404"),
        ("visits", [1, "east", 0, "f"], "CloisterError", "feature ward: the value is not among"),
        ("visits", [math.pi, 7, 3, "f"], "CloisterError", "feature dose: .* declared bounds"),
    ],
)
def test_what_goes_wrong_is_said(
    javascript: JavaScript, url: str, name: str, row: list[Any], error: str, why: str
) -> None:
    with pytest.raises(JavaScriptError, match=why) as raised:
        javascript("predict", url=url, model=name, rows=[row], options={})
    assert raised.value.name == error


def test_an_address_that_is_none_is_refused(javascript: JavaScript) -> None:
    with pytest.raises(JavaScriptError, match="must begin with http"):
        javascript("predict", url="ftp://example.org", model="digits", rows=[], options={})


def test_a_service_that_does_not_answer_is_said_to_be_away(javascript: JavaScript) -> None:
    with pytest.raises(JavaScriptError, match="CLOISTER_CORS_ORIGINS") as raised:
        javascript("predict", url="http://127.0.0.1:9", model="digits", rows=[], options={})
    assert raised.value.name == "ServiceUnavailable"


def test_it_tells_what_was_sent_and_where_the_time_went(
    javascript: JavaScript, url: str, digits_data: Data
) -> None:
    row = digits_data[0][7].tolist()
    found = javascript("query", url=url, model="digits", row=row)
    described = httpx.get(f"{url}/v2/models/digits").raise_for_status().json()["parameters"]
    ciphertext = base64.b64decode(found["sent"]["ciphertext"])
    assert len(ciphertext) == described["input_bytes"]
    assert found["sent"]["bytesDown"] == described["output_bytes"]
    assert found["sent"]["sha256"] == hashlib.sha256(ciphertext).hexdigest()
    assert all(found["milliseconds"][step] >= 0 for step in ("encrypt", "network", "decrypt"))
    assert found["milliseconds"]["evaluate"] > 0
    with EncryptedModel(url, "digits") as model:
        (quantised,) = model.quantise([row])
        assert found["integers"] == model.ask(quantised).integer_scores.tolist()
        assert found["answer"]["label"] == model.predict([row])[0]
    # The same row, under another key.
    again = javascript("query", url=url, model="digits", row=row)
    assert again["integers"] == found["integers"]
    assert again["sent"]["sha256"] != found["sent"]["sha256"]


@pytest.mark.parametrize("name", ["digits", "breast_cancer", "visits", "stains", "costs"])
def test_the_clear_answers_are_the_references(
    javascript: JavaScript, url: str, name: str, digits_data: Data, breast_cancer_data: Data
) -> None:
    rows = rows_of(name, digits_data, breast_cancer_data)
    found = javascript("clear", url=url, model=name, rows=rows)
    with EncryptedModel(url, name) as model:
        reference = model.reference()
        assert reference is not None
        unit = model.scale(rows)
        integers = reference.integer_scores(reference.quantise(unit))
        assert [one["integers"] for one in found] == integers.tolist()
        scores = reference.float_scores(unit)
        np.testing.assert_allclose([one["float"]["scores"] for one in found], scores, atol=1e-12)
        kind = "value" if name == "costs" else "label"
        answers = [one["quantised"][kind] for one in found]
        if name == "costs":
            np.testing.assert_allclose(answers, model.predict(rows).tolist(), rtol=1e-15)
        else:
            assert answers == model.predict(rows).tolist()
