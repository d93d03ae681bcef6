"""A circuit without some of the model's features, from the key holder to the service and back."""

from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from cloister_keyholder import EncryptedModel
from cloister_shared.errors import CloisterError
from cloister_shared.links import class_indices


@pytest.fixture
def model(service: TestClient) -> EncryptedModel:
    return EncryptedModel(str(service.base_url), "digits", transport=service._transport)


def test_the_key_holder_drops_them_before_it_encrypts(
    model: EncryptedModel, digits_data: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
) -> None:
    reference = model.reference()
    assert reference
    n_features = model.card.data.n_features
    dropped = np.setdiff1d(np.arange(n_features), reference.features)
    assert 0 < len(dropped) < n_features
    rows = digits_data[0][:6].copy()
    # What a dropped feature holds does not matter, as long as it is within its bounds.
    rows[:, dropped] = np.random.default_rng(3).integers(0, 17, (6, len(dropped)))
    quantised = model.quantise(rows)
    assert quantised.shape == (6, len(reference.features))
    clear = reference.integer_scores(reference.quantise(model.scale(rows)))
    answers = [model.ask(row) for row in quantised]
    np.testing.assert_array_equal([answer.integer_scores for answer in answers], clear)
    compact = model.description.compact
    assert compact is not None
    sent = compact.input_bytes(len(reference.features))
    assert {answer.bytes_up for answer in answers} == {sent}
    np.testing.assert_array_equal(model.predict(rows), class_indices(reference.dequantise(clear)))
    np.testing.assert_array_equal(model.predict(rows), model.predict(digits_data[0][:6]))
    rows[2, dropped[0]] = 17
    with pytest.raises(CloisterError, match=r"row 2, .*outside its declared bounds"):
        model.predict(rows)
