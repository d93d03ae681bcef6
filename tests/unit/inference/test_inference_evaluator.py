"""Which evaluator serves, and that results do not depend on it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from cloister_inference.app import create_app
from cloister_inference.evaluation.evaluator import EvaluatorSetting
from cloister_inference.evaluation.native import kernels
from cloister_inference.options import Options
from cloister_shared.artifact import LINEAR
from cloister_shared.linear import LinearCircuit
from cloister_shared.registry import Registry


def serve(root: Path, evaluator: EvaluatorSetting) -> TestClient:
    app = create_app(Registry(root), Options(threads=2, max_batch=4, evaluator=evaluator))
    return TestClient(app, raise_server_exceptions=False)


def parameters(service: TestClient, model: str = "digits") -> dict[str, Any]:
    answer = service.get(f"/v2/models/{model}")
    assert answer.status_code == 200, answer.text
    described: dict[str, Any] = answer.json()["parameters"]
    return described


@pytest.mark.parametrize("model", ["digits", "breast_cancer"])
def test_the_native_evaluator_serves_where_it_agrees(artifacts: Path, model: str) -> None:
    for setting in ("auto", "native"):
        with serve(artifacts, setting) as service:
            described = parameters(service, model)
            assert described["evaluator"] == "native"
            assert described["evaluator_reason"].startswith(f"{kernels()[0]}: equal to Concrete's")


def test_results_are_the_same_bytes_by_either(
    artifacts: Path, digits_payload: bytes, digits: Any, protocol: Any
) -> None:
    answers = []
    for setting in ("native", "concrete"):
        with serve(artifacts, setting) as service:
            assert parameters(service)["evaluator"] == setting
            answers.append(protocol.raw(service, "digits", digits_payload, digits.digest).content)
    assert answers[0] == answers[1]


def linear_with(artifacts: Path, tmp_path: Path, **changes: Any) -> bytes:
    """The integers of digits with something changed, as a file's content."""
    found = LinearCircuit.read(artifacts / "digits" / "1" / LINEAR)
    parts: dict[str, Any] = {
        "weights": found.weights.copy(),
        "bias": found.bias.copy(),
        "lwe_dimension": found.lwe_dimension,
        "width": found.width,
    }
    path = tmp_path / LINEAR
    LinearCircuit(
        **(parts | {name: change(parts[name]) for name, change in changes.items()})
    ).write(path)
    return path.read_bytes()


def one_more(array: Any) -> Any:
    changed = np.array(array)
    changed.flat[-1] += 1
    return changed


@pytest.mark.parametrize("part", ["weights", "bias"])
def test_a_single_wrong_integer_is_seen_and_concrete_serves(
    own_artifacts: Path,
    tmp_path: Path,
    republish: Any,
    digits_payload: bytes,
    digits: Any,
    digits_rows: np.ndarray[Any, Any],
    protocol: Any,
    part: str,
) -> None:
    republish("digits", files={LINEAR: linear_with(own_artifacts, tmp_path, **{part: one_more})})
    with serve(own_artifacts, "auto") as service:
        described = parameters(service)
        assert described["evaluator"] == "concrete"
        assert "differs from Concrete's run" in described["evaluator_reason"]
        answer = protocol.raw(service, "digits", digits_payload, digits.digest)
        assert digits.decrypt(answer.content) == digits.expected(digits_rows[0])
    with serve(own_artifacts, "native") as service:
        status, detail = protocol.problem(service.get("/v2/models/digits/versions/2"))
        assert status == 503
        assert "CLOISTER_EVALUATOR=native, but its output differs" in detail


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": lambda weights: weights[:-1]},
        {"lwe_dimension": lambda n: n + 1},
        {"width": lambda width: width - 1},
    ],
)
def test_integers_of_another_circuit_are_refused(
    own_artifacts: Path,
    tmp_path: Path,
    republish: Any,
    protocol: Any,
    changes: dict[str, Any],
) -> None:
    republish("digits", files={LINEAR: linear_with(own_artifacts, tmp_path, **changes)})
    with serve(own_artifacts, "auto") as service:
        status, detail = protocol.problem(service.get("/v2/models/digits/versions/2"))
        assert status == 503
        assert "linear.npz is of another circuit than the manifest's" in detail


WITHOUT_EXTENSION = """
import sys
sys.modules["cloister_inference.evaluation._linear"] = None
from pathlib import Path
from fastapi.testclient import TestClient
from cloister_inference.app import create_app
from cloister_inference.options import Options
from cloister_shared.registry import Registry
for setting in ("auto", "native"):
    options = Options(threads=1, max_batch=1, evaluator=setting)
    app = create_app(Registry(Path(sys.argv[1])), options)
    with TestClient(app) as service:
        answer = service.get("/v2/models/digits").json()
        print(answer.get("detail") or answer["parameters"]["evaluator_reason"])
"""


def test_an_installation_without_the_extension_serves_by_concrete(artifacts: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTENSION, str(artifacts)],
        capture_output=True,
        text=True,
        check=True,
    )
    auto, native = result.stdout.splitlines()
    assert auto == "the native evaluator was not built on this machine"
    assert "CLOISTER_EVALUATOR=native, but the native evaluator was not built" in native
