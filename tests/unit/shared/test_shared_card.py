"""The model card."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cloister_shared.card import FinalMetrics, ModelCard, RoundMetrics, read_card
from cloister_shared.datasets import schema
from cloister_shared.errors import CloisterError

CARD = ModelCard(
    name="breast_cancer",
    estimator="LogisticRegression",
    parameters={"C": 0.1, "penalty": None, "max_iter": 5},
    data=schema("breast_cancer"),
    out_of_bounds="clip",
    rounds=(
        RoundMetrics(
            round=1, sites=3, failures=1, examples=512, accuracy=0.9, loss=0.3, seconds=1.5
        ),
    ),
    final=FinalMetrics(sites=3, accuracy=0.95, loss=0.2),
    libraries={"scikit-learn": "1.5.0"},
    created=datetime(2025, 1, 2, tzinfo=UTC),
)


def test_a_card_read_from_its_json_is_equal(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text(CARD.model_dump_json(indent=2), encoding="utf-8")
    read = read_card(tmp_path / "card.json")
    assert read == CARD
    assert read.data.digest == CARD.data.digest


@pytest.mark.parametrize(
    "wrong",
    [{"loss": float("inf")}, {"loss": float("nan")}, {"loss": -1}, {"accuracy": 1.1}, {"sites": 0}],
)
def test_metrics_that_measure_nothing_are_refused(wrong: dict[str, Any]) -> None:
    valid = {"sites": 3, "accuracy": 0.5, "loss": 0.5}
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        FinalMetrics.model_validate(valid | wrong)


@given(st.binary(max_size=100) | st.sampled_from([b"{}", b"[]", b"[" * 100_000, b'{"name": 1}']))
def test_any_other_file_is_refused_by_its_path(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "card.json"
    path.write_bytes(content)
    with pytest.raises(CloisterError, match=r"card\.json is not a model card"):
        read_card(path)


def test_a_missing_card_is_named(tmp_path: Path) -> None:
    with pytest.raises(CloisterError, match=r"card\.json is missing"):
        read_card(tmp_path / "card.json")
