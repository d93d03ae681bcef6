"""The command ``keyholder`` over real HTTP."""

import json
import logging
import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from click.testing import Result
from fake_service import FakeService, problem, serve
from typer.testing import CliRunner

from cloister_keyholder import InvalidResult, InvalidSamples, KeyUnusable, RequestRefused
from cloister_keyholder.__main__ import app
from cloister_keyholder.commands.progress import show_progress
from cloister_keyholder.evaluating.evaluation import EvaluationReport
from cloister_keyholder.settings import Settings
from cloister_shared.artifact import REFERENCE
from cloister_shared.datasets import schema
from cloister_shared.reference import Reference

Data = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
Invoke = Callable[..., Result]


@pytest.fixture
def url(breast_cancer_service: FakeService) -> Iterator[str]:
    with serve(breast_cancer_service) as address:
        yield address


@pytest.fixture
def settings(url: str, tmp_path: Path) -> Settings:
    return Settings(
        url=url,
        model="breast_cancer",
        held_out_dir=tmp_path / "held_out",
        report_path=tmp_path / "reports" / "report.json",
        evaluate_samples=4,
        wait_seconds=0,
        retry_seconds=0,
    )


@pytest.fixture
def invoke(settings: Settings) -> Invoke:
    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(a) for a in arguments], obj=settings)

    return run


@pytest.fixture
def rows(tmp_path: Path, breast_cancer_data: Data) -> Path:
    path = tmp_path / "rows.csv"
    names = [feature.name for feature in schema("breast_cancer").features]
    lines = [names, *breast_cancer_data[0][15:25].tolist()]
    path.write_text("".join(",".join(map(str, line)) + "\n" for line in lines))
    return path


@pytest.fixture
def held_out(tmp_path: Path, breast_cancer_data: Data) -> Path:
    folder = tmp_path / "held_out"
    folder.mkdir()
    (folder / "schema.json").write_text(schema("breast_cancer").model_dump_json())
    np.savez(
        folder / "held_out.npz", X=breast_cancer_data[0][15:23], y=breast_cancer_data[1][15:23]
    )
    return folder


def test_predict_prints_a_label_a_line(
    invoke: Invoke, rows: Path, breast_cancer_data: Data
) -> None:
    result = invoke("predict", rows)
    assert result.exit_code == 0, result.output
    labels = result.stdout.splitlines()
    assert len(labels) == 10
    assert np.mean(np.array(labels) == breast_cancer_data[1][15:25]) >= 0.9


def test_predict_prints_probabilities(invoke: Invoke, rows: Path) -> None:
    labels = invoke("predict", rows).stdout.splitlines()
    result = invoke("predict", rows, "--proba")
    header, *lines = result.stdout.splitlines()
    assert header == "malignant,benign"
    values = np.array([[float(cell) for cell in line.split(",")] for line in lines])
    np.testing.assert_allclose(values.sum(axis=1), 1)
    assert [header.split(",")[i] for i in values.argmax(axis=1)] == labels


def test_predict_prints_json(invoke: Invoke, rows: Path) -> None:
    labels = invoke("predict", rows).stdout.splitlines()
    told = json.loads(invoke("predict", rows, "--json").stdout)
    assert told == {"name": "breast_cancer", "version": 1, "predictions": labels}
    told = json.loads(invoke("predict", rows, "--json", "--proba").stdout)
    assert (told["name"], told["classes"]) == ("breast_cancer", ["malignant", "benign"])
    values = np.array(told["probabilities"])
    np.testing.assert_allclose(values.sum(axis=1), 1)
    assert [told["classes"][i] for i in values.argmax(axis=1)] == labels


def test_url_and_model_override_the_settings(invoke: Invoke, rows: Path, url: str) -> None:
    result = invoke("predict", rows, "--model", "other")
    assert isinstance(result.exception, RequestRefused)
    result = invoke("predict", rows, "--url", url, "--model", "breast_cancer")
    assert result.exit_code == 0


def posted(command: str, service: FakeService) -> bytes:
    """Do what the printed curl command does."""
    words = shlex.split(command)
    assert words[0] == "curl"
    headers = dict(
        words[i + 1].split(": ", 1) for i, word in enumerate(words) if word == "--header"
    )
    payload = Path(words[words.index("--data-binary") + 1].removeprefix("@"))
    response = httpx.post(words[-1], content=payload.read_bytes(), headers=headers)
    assert response.status_code == 200, response.text
    return response.content


def test_encrypt_then_curl_then_decrypt(
    invoke: Invoke, rows: Path, tmp_path: Path, breast_cancer_service: FakeService
) -> None:
    labels = invoke("predict", rows).stdout.splitlines()
    for row in (0, 4, 9):
        payload, key, answer = (tmp_path / f"{row}.{end}" for end in ("bin", "key", "result"))
        result = invoke("encrypt", rows, "--row", row, "--payload", payload, "--key", key)
        assert result.exit_code == 0, result.output
        answer.write_bytes(posted(result.stdout, breast_cancer_service))
        result = invoke("decrypt", answer, "--key", key)
        assert result.exit_code == 0, result.output
        assert result.stdout.strip() == labels[row]


def test_the_key_file_is_its_owners_alone_whatever_the_umask(
    invoke: Invoke, rows: Path, tmp_path: Path
) -> None:
    before = os.umask(0)
    try:
        invoke("encrypt", rows, "--payload", tmp_path / "p", "--key", tmp_path / "k")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600


@pytest.mark.parametrize("existing", ["p", "k"])
def test_files_are_not_overwritten(
    existing: str, invoke: Invoke, rows: Path, tmp_path: Path
) -> None:
    (tmp_path / existing).write_text("precious")
    result = invoke("encrypt", rows, "--payload", tmp_path / "p", "--key", tmp_path / "k")
    assert isinstance(result.exception, KeyUnusable)
    assert "not overwritten" in str(result.exception)
    assert (tmp_path / existing).read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {"rows.csv", existing}


def test_a_key_is_not_written_through_a_link(invoke: Invoke, rows: Path, tmp_path: Path) -> None:
    (tmp_path / "k").symlink_to(tmp_path / "elsewhere")
    result = invoke("encrypt", rows, "--payload", tmp_path / "p", "--key", tmp_path / "k")
    assert isinstance(result.exception, KeyUnusable)
    assert not (tmp_path / "elsewhere").exists()


def test_decrypt_says_how_to_delete_the_key(
    invoke: Invoke,
    rows: Path,
    tmp_path: Path,
    breast_cancer_service: FakeService,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    key = tmp_path / "a key"
    result = invoke("encrypt", rows, "--payload", tmp_path / "p", "--key", key)
    (tmp_path / "r").write_bytes(posted(result.stdout, breast_cancer_service))
    invoke("decrypt", tmp_path / "r", "--key", key)
    assert f"shred -u '{key}'" in caplog.text


def test_decrypt_refuses_what_does_not_belong(
    invoke: Invoke, rows: Path, tmp_path: Path, breast_cancer_service: FakeService
) -> None:
    key, answer = tmp_path / "k", tmp_path / "r"
    result = invoke("encrypt", rows, "--payload", tmp_path / "p", "--key", key)
    answer.write_bytes(posted(result.stdout, breast_cancer_service)[:-8])
    assert isinstance(invoke("decrypt", answer, "--key", key).exception, InvalidResult)
    assert isinstance(invoke("decrypt", tmp_path / "x", "--key", key).exception, InvalidSamples)
    assert isinstance(invoke("decrypt", answer, "--key", answer).exception, KeyUnusable)
    assert isinstance(invoke("decrypt", answer, "--key", tmp_path / "x").exception, KeyUnusable)
    content = json.loads(key.read_text())
    for change in ({"client_digest": "0" * 64}, {"keyset": "AAAA"}, {"format": "other"}):
        key.write_text(json.dumps({**content, **change}))
        assert isinstance(invoke("decrypt", answer, "--key", key).exception, KeyUnusable)


def test_a_row_that_is_not_there(invoke: Invoke, rows: Path, tmp_path: Path) -> None:
    arguments = ("--payload", tmp_path / "p", "--key", tmp_path / "k")
    result = invoke("encrypt", rows, "--row", 10, *arguments)
    assert isinstance(result.exception, InvalidSamples)
    assert "10 rows" in str(result.exception)


def test_evaluate_prints_and_writes_a_report(
    invoke: Invoke, held_out: Path, tmp_path: Path
) -> None:
    result = invoke("evaluate")
    assert result.exit_code == 0, result.output
    assert "4 of 4 predictions" in result.stdout
    (file,) = (tmp_path / "reports").iterdir()
    report = EvaluationReport.model_validate_json(file.read_bytes())
    assert (report.evaluated, report.held_out) == (4, 8)
    assert report.scores
    assert report.encrypted_score == report.scores.clear_quantised


@pytest.mark.usefixtures("held_out")
def test_evaluate_ends_with_the_consoles_address_where_there_is_one(
    invoke: Invoke, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    address = "http://127.0.0.1:8080"
    with caplog.at_level("INFO"):
        assert invoke("evaluate").exit_code == 0
        assert address not in caplog.text
        told = settings.model_copy(update={"console_url": address})
        assert CliRunner().invoke(app, ["evaluate"], obj=told).exit_code == 0
    assert caplog.messages[-1] == f"see the training, and try a prediction: {address}"


@pytest.mark.usefixtures("held_out")
def test_evaluate_prints_the_report_as_json(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("evaluate", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads(
        (tmp_path / "reports" / "report.json").read_text()
    )
    assert "accuracy" in result.stderr


def test_evaluate_takes_options(invoke: Invoke, held_out: Path, tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.json"
    assert invoke("evaluate", "--samples", 0, "--report", path).exit_code == 0
    assert json.loads(path.read_text())["evaluated"] == 8
    assert not (tmp_path / "reports").exists()


def turned(service: FakeService) -> Callable[[bytes], bytes]:
    """Mirror the encrypted score at its zero point, by its mask and body, so its sign turns."""
    circuit = service.details.circuit
    zero_point = int(Reference.read(service.folder / REFERENCE).output_zero_point[0])
    shift = np.uint64(2 * zero_point << (63 - circuit.width))
    data = slice(64, 64 + 8 * (circuit.lwe_dimension + 1))

    def turn(result: bytes) -> bytes:
        words = -np.frombuffer(result[data], dtype="<u8")
        words[-1:] += shift
        return result[: data.start] + words.tobytes() + result[data.stop :]

    return turn


def test_evaluate_fails_when_encrypted_predictions_differ(
    invoke: Invoke, held_out: Path, tmp_path: Path, breast_cancer_service: FakeService
) -> None:
    breast_cancer_service.tamper = turned(breast_cancer_service)
    result = invoke("evaluate", "--samples", 0)
    assert result.exit_code == 1
    report = json.loads((tmp_path / "reports" / "report.json").read_text())
    assert report["agreement"] == {"samples": 8, "equal_scores": 0, "equal_predictions": 0}


def test_evaluate_fails_when_only_scores_differ(
    invoke: Invoke, held_out: Path, tmp_path: Path, breast_cancer_service: FakeService
) -> None:
    circuit = breast_cancer_service.details.circuit
    body = 64 + 8 * circuit.lwe_dimension
    one = 1 << (64 - circuit.width - 1)

    def nudge(result: bytes) -> bytes:
        word = (int.from_bytes(result[body : body + 8], "little") + one) % (1 << 64)
        return result[:body] + word.to_bytes(8, "little") + result[body + 8 :]

    breast_cancer_service.tamper = nudge
    result = invoke("evaluate", "--samples", 0)
    report = json.loads((tmp_path / "reports" / "report.json").read_text())
    assert report["agreement"] == {"samples": 8, "equal_scores": 0, "equal_predictions": 8}
    assert result.exit_code == 1


def test_evaluate_waits_for_the_model(
    invoke: Invoke, held_out: Path, breast_cancer_service: FakeService
) -> None:
    breast_cancer_service.interceptors = [lambda _: problem(404, "not yet")]
    result = invoke("evaluate")
    assert "still waiting for model breast_cancer" in str(result.exception)


@pytest.mark.parametrize("total", [1, 7, 10, 200])
def test_progress_in_a_log_is_a_line_every_tenth(
    total: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with show_progress("evaluating") as report:
        for done in range(1, total + 1):
            report(done, total)
    assert len(caplog.records) == min(total, 10)
    assert caplog.records[-1].message == f"evaluating: {total} of {total}"


def run_program(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CLOISTER_")}
    return subprocess.run(
        [sys.executable, "-m", "cloister_keyholder", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**kept, "NO_COLOR": "1", **environment},
        timeout=120,
        check=False,
    )


def test_the_program_ends_with_a_message_and_no_traceback(rows: Path) -> None:
    ended = run_program(
        "predict", rows, CLOISTER_URL="http://127.0.0.1:9", CLOISTER_RETRY_SECONDS="0"
    )
    assert ended.returncode == 1
    assert "CLOISTER_URL" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert run_program("predict").returncode == 2
    ended = run_program("predict", rows, CLOISTER_RETRY_SECONDS="-1")
    assert ended.returncode == 1
    assert "CLOISTER_RETRY_SECONDS" in ended.stderr
    ended = run_program("--help")
    assert ended.returncode == 0
    assert "evaluate" in ended.stdout


def test_the_program_predicts(rows: Path, url: str) -> None:
    ended = run_program("predict", rows, CLOISTER_URL=url, CLOISTER_MODEL="breast_cancer")
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.splitlines()) == 10


def test_the_program_exits_1_when_predictions_differ(
    held_out: Path, tmp_path: Path, url: str, breast_cancer_service: FakeService
) -> None:
    environment = {
        "CLOISTER_URL": url,
        "CLOISTER_MODEL": "breast_cancer",
        "CLOISTER_HELD_OUT_DIR": str(held_out),
        "CLOISTER_REPORT_PATH": str(tmp_path / "report.json"),
    }
    ended = run_program("evaluate", **environment)
    assert ended.returncode == 0, ended.stderr
    breast_cancer_service.tamper = turned(breast_cancer_service)
    ended = run_program("evaluate", **environment)
    assert ended.returncode == 1
    assert "differ from the clear-quantised ones" in ended.stderr


def test_neither_torch_nor_concretes_front_end_is_loaded(
    breast_cancer_folder: Path,
) -> None:
    program = f"""
import sys
from pathlib import Path
import numpy as np
import cloister_keyholder.__main__
from cloister_keyholder.package.content import open_package
package = open_package(Path({str(breast_cancer_folder / "client.zip")!r}).read_bytes())
assert package.circuit.encrypt(np.zeros(30, dtype=np.int64)).ciphertext
loaded = {{"torch", "concrete.fhe", "concrete.ml", "sklearn", "pandas"}} & set(sys.modules)
assert not loaded, loaded
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
