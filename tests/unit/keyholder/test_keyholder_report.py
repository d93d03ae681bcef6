"""What a report says of real small models, and that no name in it is more than text."""

import base64
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_service import FakeService, stock_server
from hypothesis import given
from hypothesis import strategies as st
from report_pages import FINAL, Page, page, rounds_of, with_card
from sklearn.linear_model import Ridge
from sklearn.metrics import confusion_matrix

from cloister_keyholder import EncryptedModel
from cloister_keyholder.errors import ReportError
from cloister_keyholder.evaluating.evaluation import EvaluationReport, Milliseconds, evaluate
from cloister_keyholder.evaluating.mistakes import Confusion
from cloister_keyholder.evaluating.samples import HeldOut
from cloister_keyholder.reporting.charts import BOTTOM, LEFT, RIGHT, TOP, chart
from cloister_keyholder.reporting.sources import (
    Published,
    check_is_of,
    from_registry,
    from_service,
    read_evaluation,
)
from cloister_keyholder.reporting.text import LONGEST
from cloister_shared.artifact import CARD, WEIGHTS
from cloister_shared.card import DifferentialPrivacy, Federation, ModelCard
from cloister_shared.datasets import schema
from cloister_shared.preprocessing import to_inputs
from cloister_shared.registry import Registry
from cloister_shared.schema import Category, DatasetSchema, Feature
from cloister_shared.weights import LinearWeights

Data = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
AGAINST_CLEAR = "Encrypted against clear-quantised"
AGAINST_LABELS = "Encrypted against true labels"


@pytest.fixture
def published(digits_artifacts: Path) -> Published:
    return from_registry(digits_artifacts / "artifacts", "digits", None)


@pytest.fixture
def held_out(digits: EncryptedModel, digits_data: Data) -> HeldOut:
    """30 samples, the first 10 of which have wrong labels."""
    labels = digits_data[1][:30].copy()
    labels[:10] = (labels[:10] + 1) % 10
    return HeldOut(digits.card.data, digits_data[0][:30], labels)


@pytest.fixture
def evaluated(digits: EncryptedModel, held_out: HeldOut) -> EvaluationReport:
    return evaluate(digits, held_out, 20)


def samples(rows: list[list[str]]) -> np.ndarray[Any, Any]:
    """The counts of a matrix, with the sums of its rows."""
    return np.array([[int(cell) for cell in row[1:]] for row in rows[1:]])


def test_many_classes_have_matrices_of_what_was_taken_for_what(
    published: Published, evaluated: EvaluationReport, digits: EncryptedModel, held_out: HeldOut
) -> None:
    found = page(published, evaluated)
    predicted = digits.predict(held_out.rows[:20])
    expected = confusion_matrix(held_out.answers[:20], predicted, labels=range(10))
    labels = found.tables[AGAINST_LABELS]
    assert labels[0] == ["label", *map(str, range(10)), "all"]
    np.testing.assert_array_equal(samples(labels)[:, :-1], expected)
    np.testing.assert_array_equal(samples(labels)[:, -1], expected.sum(axis=1))
    clear = samples(found.tables[AGAINST_CLEAR])[:, :-1]
    np.testing.assert_array_equal(clear, np.diag(clear.diagonal()))
    assert clear.sum() == 20
    assert f"{np.trace(expected)} of 20 samples are the same." in found.text
    assert "20 of 20 predictions, 20 of 20 bit by bit." in found.text


def test_scores_times_bytes_and_who_served(
    published: Published, evaluated: EvaluationReport
) -> None:
    server = Milliseconds(median=1.5, mean=2.25, p95=31, maximum=1234.5)
    times = evaluated.milliseconds.model_copy(update={"server": server})
    evaluated = evaluated.model_copy(update={"evaluator": "native", "milliseconds": times})
    found = page(published, evaluated)
    scores, everything = evaluated.scores, evaluated.reference_scores
    assert scores
    assert everything
    assert found.tables["How well it predicts"][1:] == [
        [
            "accuracy of 20 samples",
            f"{scores.float_model:.4f}",
            f"{scores.clear_quantised:.4f}",
            f"{scores.encrypted:.4f}",
        ],
        [
            "accuracy of 30 samples",
            f"{everything.float_model:.4f}",
            f"{everything.clear_quantised:.4f}",
            "not sent",
        ],
    ]
    table = found.tables["Milliseconds a prediction"]
    assert table[0][1:] == ["median", "mean", "95 %", "longest"]
    assert table[3] == ["of it, evaluated encrypted", "1.50", "2.25", "31.00", "1,234.50"]
    assert found.facts["Client"].startswith("native")
    assert found.facts["Evaluator"].startswith("native")
    assert found.facts["Bytes a prediction"] == (
        f"{evaluated.bytes_up:,} up, {evaluated.bytes_down:,} down"
    )
    assert evaluated.evaluated_at
    assert found.facts["Evaluated"] == f"{evaluated.evaluated_at:%Y-%m-%d %H:%M} UTC"
    versions = {row[0]: row[1:] for row in found.tables["Versions"]}
    assert versions["numpy"][1:] == [np.__version__, np.__version__]
    assert versions["concrete-ml"] == ["-", "1.9.0", "-"]


def test_the_circuit_and_its_proof_are_the_manifests(published: Published) -> None:
    facts, details = page(published).facts, published.details
    assert details
    assert details.agreement
    circuit, verified = details.circuit, details.verification
    assert facts["LWE dimension"] == f"{circuit.lwe_dimension:,}"
    assert facts["Bits"] == f"{circuit.bits_inputs} of inputs, {circuit.bits_weights} of weights"
    assert f"overflows the {circuit.width} bits" in facts["Calibration"]
    assert facts["Verification"].startswith(
        f"{verified.extreme + verified.boundary + verified.random} runs under real encryption "
        f"({verified.extreme} of extreme"
    )
    same = details.agreement.probes - details.agreement.differing
    assert facts["Agreement"].startswith(f"{same:,} of {details.agreement.probes:,} synthetic")
    assert facts["Bytes a query"].startswith(
        f"{circuit.input_bytes:,} up, {circuit.output_bytes:,} down"
    )
    assert facts["Digest of client.zip"] == details.client_digest
    assert facts["Image"] == "8 x 8 pixels, each in [0, 16]"


def test_a_tree_has_leaves_and_needs_evaluation_keys(tree_artifacts: Path) -> None:
    published = from_registry(tree_artifacts / "artifacts", "tree", None)
    assert published.details
    keys = published.details.circuit.evaluation_keys
    assert keys
    facts = page(published).facts
    assert facts["Bits"].endswith("of the values of leaves")
    assert facts["Evaluation keys"] == f"{keys.length:,} bytes, once"
    assert facts["Estimator"] == "DecisionTreeClassifier"
    taken = published.details.circuit.n_features
    assert facts["Inputs that are encrypted"].startswith(f"{taken} of 4")


def test_two_classes_have_their_names(
    breast_cancer: EncryptedModel, breast_cancer_artifacts: Path, breast_cancer_data: Data
) -> None:
    rows, labels = breast_cancer_data[0][15:25], breast_cancer_data[1][15:25]
    data = breast_cancer.card.data
    evaluated = evaluate(breast_cancer, HeldOut(data, rows, data.class_indices(labels)), 0)
    published = from_registry(breast_cancer_artifacts / "artifacts", "breast_cancer", 1)
    found = page(published, evaluated)
    names = ["malignant", "benign"]
    predicted = breast_cancer.predict(rows)
    expected = confusion_matrix(labels, predicted, labels=names).tolist()
    table = found.tables[AGAINST_LABELS]
    assert table[0] == ["label", *names, "all"]
    assert [row[0] for row in table[1:]] == names
    assert samples(table)[:, :-1].tolist() == expected
    features = found.tables["Features, as declared"]
    assert features[1] == ["mean radius", "[6.98, 28.12]", "refused"]
    assert len(features) == 31
    # All were sent: the line of all held-out samples would be the same once more.
    assert len(found.tables["How well it predicts"]) == 2


@pytest.fixture(scope="module")
def regression(
    tmp_path_factory: pytest.TempPathFactory,
    diabetes_data: Data,
    compile_published: Callable[[Path, str], None],
) -> Path:
    """A folder with artifacts/ that hold version 1 of ``diabetes``."""
    root, data = tmp_path_factory.mktemp("regression"), schema("diabetes")
    fitted = Ridge().fit(to_inputs(diabetes_data[0], data), data.targets(diabetes_data[1]))
    card = ModelCard(
        name="diabetes",
        estimator="Ridge",
        parameters={},
        data=data,
        rounds=(),
        libraries={},
        created=datetime.now(UTC),
    )

    def write(folder: Path) -> dict[str, Any]:
        (folder / CARD).write_text(card.model_dump_json())
        coef, intercept = np.atleast_2d(fitted.coef_), np.ravel(fitted.intercept_)
        LinearWeights(coef, intercept).write(folder / WEIGHTS)
        return {}

    Registry(root / "models").publish("diabetes", "fitted", write)
    compile_published(root, "diabetes")
    return root


@pytest.fixture
def diabetes(regression: Path) -> Iterator[EncryptedModel]:
    folder = regression / "artifacts" / "diabetes" / "1"
    service = FakeService(folder, stock_server(folder))
    with EncryptedModel("http://service.test", "diabetes", transport=service.transport) as model:
        yield model


def test_a_regression_has_deciles_of_its_errors(
    regression: Path, diabetes: EncryptedModel, diabetes_data: Data
) -> None:
    rows, targets = diabetes_data[0][:25], diabetes_data[1][:25]
    published = from_registry(regression / "artifacts", "diabetes", None)
    samples = HeldOut(diabetes.card.data, rows, targets.astype(np.float64))
    evaluated = evaluate(diabetes, samples, 0)
    found = page(published, evaluated)
    errors = np.sort(np.abs(diabetes.predict(rows) - targets))
    table = found.tables["Absolute errors"]
    assert [row[0] for row in table[1:]] == [f"{share} % below" for share in range(10, 100, 10)]
    assert table[5][3] == f"{errors[12]:.4g}"
    assert [row[2] for row in table[1:]] == [row[3] for row in table[1:]]
    assert found.tables["How well it predicts"][-1][0] == "mean absolute error"
    assert found.tables["How well it predicts"][-1][3] == f"{errors.mean():.4f}"
    assert AGAINST_LABELS not in found.tables
    assert found.facts["Target"] == "label, from 1 to 360"
    few = page(published, evaluate(diabetes, samples, 19))
    assert "Absolute errors" not in few.tables
    assert "they need 20 samples" in few.text


def test_what_is_missing_is_said(published: Published, evaluated: EvaluationReport) -> None:
    found = page(published)
    assert "Not evaluated yet: cloister evaluate" in found.text
    assert "There is no evaluation of this version" in found.text
    assert AGAINST_LABELS not in found.tables
    assert "Trained in one place: there were no rounds across sites." in found.text
    found = page(published, None, "the last evaluation is of version 2 of digits")
    assert "(the last evaluation is of version 2 of digits)" in found.text
    # As an earlier release wrote it.
    old = evaluated.model_copy(
        update={"confusion": None, "evaluator": None, "evaluated_at": None, "libraries": {}}
    )
    found = page(published, old)
    assert "No confusion matrix: evaluate again" in found.text
    assert (found.facts["Evaluated"], found.facts["Evaluator"]) == ("-", "not told")


def test_without_a_reference_there_is_no_comparison(
    published: Published, digits: EncryptedModel, digits_service: FakeService, held_out: HeldOut
) -> None:
    digits_service.publish_reference = False
    found = page(published, evaluate(digits, held_out, 20))
    assert "Not compared with the clear-quantised results" in found.text
    assert "CLOISTER_PUBLISH_REFERENCE" in found.text
    assert found.tables["How well it predicts"][1][1:3] == ["-", "-"]
    assert AGAINST_CLEAR not in found.tables
    assert samples(found.tables[AGAINST_LABELS])[:, -1].sum() == 20


def test_a_service_that_computes_something_else_is_told_first(
    published: Published, evaluated: EvaluationReport
) -> None:
    assert evaluated.agreement
    wrong = evaluated.agreement.model_copy(update={"equal_scores": 17, "equal_predictions": 18})
    found = page(published, evaluated.model_copy(update={"agreement": wrong}))
    assert ("p", "class", "note bad") in found.attributes
    assert "The service does not compute what it published." in found.text
    assert "18 of 20 predictions, 17 of 20 bit by bit." in found.text
    assert ("p", "class", "note bad") not in page(published, evaluated).attributes


def test_a_service_tells_of_the_proof_as_the_registry_does(
    digits: EncryptedModel, published: Published
) -> None:
    found, known = page(from_service(digits)), page(published)
    for fact in ("Bits", "Verification", "Agreement", "Calibration", "LWE dimension"):
        assert found.facts[fact] == known.facts[fact]
    assert "Compiled" not in found.facts


def test_where_the_service_does_not_tell_of_the_proof_the_report_says_so(
    digits: EncryptedModel, published: Published
) -> None:
    found = page(replace(from_service(digits), details=None))
    assert found.facts["LWE dimension"] == f"{published.lwe_dimension:,}"
    assert (
        found.facts["Inputs that are encrypted"]
        == (page(published).facts["Inputs that are encrypted"])
    )
    assert "Verification" not in found.facts
    assert "Bits, verification and agreement are not told by the service." in found.text


def drawn(found: Page) -> list[str]:
    """The titles of the charts."""
    return re.findall(r"<figcaption[^>]*>([^<]*)<", found.html)


def test_a_training_has_curves_and_its_privacy(published: Published) -> None:
    federation = Federation(strategy="FedAvgM", parameters={"momentum": 0.5})
    found = page(
        with_card(published, rounds=rounds_of(4), final=FINAL, federation=federation.model_dump())
    )
    assert drawn(found) == ["Accuracy", "Loss", "Seconds"]
    # The last point is of the model after the last round.
    assert "Accuracy over rounds completed, 0 to 4: from 0.5 to 0.875" in found.html
    assert found.tables["Rounds"][1] == ["1", "3", "0", "300", "0.5000", "2", "-", "1.50"]
    assert len(found.tables["Rounds"]) == 5
    facts = found.facts
    assert facts["Strategy"] == "FedAvgM (momentum 0.5)"
    assert (facts["Secure aggregation"], facts["Differential privacy"]) == ("no", "none")
    assert facts["Seconds a round"] == "1.5 on average"
    assert facts["Measured at the end, on validation rows"].startswith("accuracy 0.8750, loss 0.25")
    private = Federation(
        strategy="FedAvg",
        secure_aggregation=True,
        differential_privacy=DifferentialPrivacy(
            noise_multiplier=0.5, clipping_norm=1, delta=1e-5, epsilon=12.5
        ),
    )
    rounds = [
        one.model_copy(update={"epsilon": 3.0 * one.round})
        for one in rounds_of(4, accuracy=None, loss=None, examples=None)
    ]
    found = page(with_card(published, rounds=rounds, final=None, federation=private.model_dump()))
    assert drawn(found) == ["Seconds", "Epsilon"]
    assert "sites report no accuracy and no loss" in found.text
    assert found.facts["Secure aggregation"] == "yes"
    assert "epsilon 12.5 at delta 1e-05" in found.facts["Differential privacy"]
    assert "Epsilon spent 12.5 at delta 1e-05" in found.text
    assert found.tables["Rounds"][2] == ["2", "3", "0", "-", "-", "-", "6", "1.50"]


@pytest.mark.parametrize(("rounds", "folded"), [(30, 0), (31, 1)])
def test_a_long_table_of_rounds_is_folded(published: Published, rounds: int, folded: int) -> None:
    found = page(with_card(published, rounds=rounds_of(rounds), final=FINAL))
    assert [tag for tag, _ in found.tags].count("details") == folded
    assert len(found.tables["Rounds"]) == rounds + 1


def test_curves_are_drawn_to_the_last_round_of_many(published: Published) -> None:
    found = page(with_card(published, rounds=rounds_of(1000), final=FINAL))
    lines = [value for tag, name, value in found.attributes if (tag, name) == ("path", "d")]
    longest = sorted(lines, key=len)[-3:]
    assert [line.count("L") for line in sorted(longest, key=len)] == [999, 1000, 1000]
    assert all(float(line.rpartition("L")[2].split()[0]) == RIGHT for line in longest)


@pytest.mark.parametrize("classes", [20, 21, 500])
def test_too_many_classes_for_a_matrix_are_listed(
    published: Published, evaluated: EvaluationReport, classes: int
) -> None:
    names = tuple(f"class {i}" for i in range(classes))
    data = published.card.data.model_copy(update={"classes": names})
    labels = np.arange(60) % classes
    # Class 1 is taken for 0 more often than any other is.
    predicted = np.where(labels == 1, 0, (labels + (labels > 9)) % classes)
    labels, predicted = np.append(labels, [1] * 9), np.append(predicted, [0] * 9)
    confusion = Confusion.of(predicted, labels, predicted)
    many = with_card(published, data=data.model_dump())
    table = page(many, evaluated.model_copy(update={"confusion": confusion})).tables[AGAINST_LABELS]
    if classes == 20:
        assert len(table) == 21
        assert table[2][:4] == ["class 1", "12", "0", "0"]
    else:
        assert table[0] == ["label", "encrypted", "samples"]
        assert table[1][:2] == ["class 1", "class 0"]
        assert len(table) <= 21


HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "' onmouseover='alert(1)",
    "</style><script>alert(1)</script>",
    "{{ 7 * 7 }}{% for a in b %}",
    "&lt;b&gt;&amp;",
    "x" * 5000,
    "ßütžλ中文🦉",
    "--><!--",
    "]]><svg/onload=alert(1)>",
)


def hostile_card(text: str) -> dict[str, Any]:
    """What a service that is not trusted can write into a card."""
    return {
        "name": text,
        "parameters": {text: [text, {"a": text}]},
        "data": DatasetSchema(
            dataset=text,
            features=(
                Feature(name=text, low=0, high=1),
                Category(name=f"{text}2", categories=(text, "other"), missing=text),
            ),
            label=f"{text}3",
            classes=(text, "other"),
        ).model_dump(),
        "federation": Federation(strategy=text, parameters={text: 1}).model_dump(),
        "rounds": rounds_of(2),
        "libraries": {text: text},
    }


@pytest.mark.parametrize("text", HOSTILE)
def test_a_name_is_never_more_than_text(
    published: Published, evaluated: EvaluationReport, text: str
) -> None:
    confusion = Confusion.of(*[np.array([0, 1, 1])] * 3)
    report = evaluated.model_copy(
        update={
            "confusion": confusion,
            "evaluator": text,
            "client": text,
            "without_reference": text,
        }
    )
    harmless = page(replace(with_card(published, **hostile_card("plain")), name="plain"), report)
    found = page(replace(with_card(published, **hostile_card(text)), name=text), report)
    # The same elements with the same attributes, whatever the names are.
    assert found.tags == harmless.tags
    assert found.style == harmless.style
    shown = text if len(text) <= LONGEST else text[: LONGEST - 1]
    for name in ("Data", "Strategy", "Classes"):
        assert shown[:100] in found.facts[name]
    assert f"{shown[:11]}" in found.tables[AGAINST_LABELS][0][1]
    assert "x" * (LONGEST + 1) not in found.html


def test_text_cannot_turn_or_break_what_stands_around_it(published: Published) -> None:
    turned = replace(
        with_card(published, libraries={"a\u202eb\u2066c\x00d\ne": "1\u200f2"}, parameters={}),
        name="one\u202etwo\x1b[31m",
    )
    html = page(turned).html
    assert all(character.isprintable() or character == "\n" for character in html)
    assert "a\ufffdb\ufffdc\ufffdd\ufffde" in html


@pytest.mark.parametrize("number", [10**16, 10**400, 10**4000])
def test_a_count_of_any_size_is_laid_out(published: Published, number: int) -> None:
    rounds = rounds_of(2, examples=number, sites=number, round=number, loss=1e308, seconds=1e300)
    found = page(with_card(published, rounds=rounds, final=FINAL))
    assert "over 10^15" in found.tables["Rounds"][1]
    assert drawn(found) == ["Accuracy"]


def test_nothing_is_loaded_and_nothing_runs(
    published: Published, evaluated: EvaluationReport
) -> None:
    found = page(with_card(published, rounds=rounds_of(3), final=FINAL), evaluated)
    (policy,) = [
        value for tag, name, value in found.attributes if name == "content" and "-src" in value
    ]
    digest = base64.b64encode(hashlib.sha256(found.style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert {tag for tag, _ in found.tags}.isdisjoint({"script", "link", "img", "iframe", "form"})
    names = {name for _, name, _ in found.attributes}
    assert names.isdisjoint({"src", "href", "style", "action", "srcset"})
    assert not any(name.startswith("on") for name in names)
    assert "url(" not in found.style
    assert "@import" not in found.style
    assert found.html.startswith("<!DOCTYPE html>")


def test_an_evaluation_is_of_one_version_and_one_client(
    published: Published, evaluated: EvaluationReport, tmp_path: Path
) -> None:
    assert check_is_of(evaluated, published) is None
    later = replace(published, version=2)
    assert check_is_of(evaluated, later) == "the last evaluation is of version 1 of digits"
    other = replace(published, client_digest="0" * 64)
    assert "with another client.zip" in (check_is_of(evaluated, other) or "")
    beyond = Confusion.of(np.array([10]), np.array([0]), None)
    with pytest.raises(ReportError, match="classes that version 1 of digits does not have"):
        check_is_of(evaluated.model_copy(update={"confusion": beyond}), published)
    path = tmp_path / "report.json"
    assert read_evaluation(path) is None
    path.write_text(evaluated.model_dump_json())
    assert read_evaluation(path) == evaluated
    path.write_text(evaluated.model_dump_json()[:-20])
    with pytest.raises(ReportError, match="evaluate again"):
        read_evaluation(path)


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.lists(FINITE | st.none() | st.floats(0, 1), min_size=1, max_size=80),
    st.integers(0, 1),
    st.booleans(),
)
def test_a_chart_lies_within_its_axes(
    values: list[float | None], first: int, from_zero: bool
) -> None:
    if from_zero:
        values = [None if value is None else abs(value) for value in values]
    found = chart("Loss", values, across="rounds", first=first, from_zero=from_zero)
    known = [value for value in values if value is not None and abs(value) <= 1e100]
    assert (found is None) == (len(known) < 2)
    if found is None:
        return
    numbers = [tuple(map(float, one.split())) for one in re.findall(r"[ML]([^ML]+)", found.path)]
    assert len(numbers) == len(known)
    for x, y in numbers:
        assert LEFT <= x <= RIGHT
        assert TOP <= y <= BOTTOM
    heights = [tick.at for tick in found.lines]
    assert 2 <= len(heights) <= 8
    assert heights == sorted(set(heights), reverse=True)
    assert (heights[0], heights[-1]) == (BOTTOM, TOP)
    steps = [int(tick.text) for tick in found.columns]
    assert steps[0] == first
    assert len(steps) <= 7
    assert steps == sorted(set(steps))
    assert all(LEFT <= tick.at <= RIGHT for tick in found.columns)
    # Higher values are not drawn lower.
    order = sorted(range(len(known)), key=lambda i: known[i])
    drawn_at = [numbers[i][1] for i in order]
    assert drawn_at == sorted(drawn_at, reverse=True)


def test_the_ticks_of_a_chart_are_round_numbers() -> None:
    found = chart("Accuracy", [0.912, None, 0.934, 0.951], across="rounds")
    assert found
    assert [tick.text for tick in found.lines] == ["0.91", "0.92", "0.93", "0.94", "0.95", "0.96"]
    assert [tick.text for tick in found.columns] == ["1", "2", "3", "4"]
    assert found.path.count("M") == 2
    found = chart("Seconds", [1234.0, 5678.0], across="rounds", from_zero=True)
    assert found
    assert [tick.text for tick in found.lines] == ["0", "2,000", "4,000", "6,000"]
