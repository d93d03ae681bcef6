"""The command ``keyholder report``: from a registry or a service, to a file or standard output."""

import json
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from fake_service import FakeService, serve
from report_pages import Page
from typer.testing import CliRunner

from cloister_keyholder.__main__ import app
from cloister_keyholder.errors import ReportError
from cloister_keyholder.settings import Settings
from cloister_shared.artifact import CARD
from cloister_shared.datasets import schema
from cloister_shared.errors import CloisterError

Data = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
Invoke = Callable[..., Result]


@pytest.fixture
def url(breast_cancer_service: FakeService) -> Iterator[str]:
    with serve(breast_cancer_service) as address:
        yield address


@pytest.fixture
def invoke(url: str, tmp_path: Path) -> Invoke:
    settings = Settings(
        url=url,
        model="breast_cancer",
        held_out_dir=tmp_path / "held_out",
        report_path=tmp_path / "reports" / "report.json",
        wait_seconds=0,
        retry_seconds=0,
    )

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(a) for a in arguments], obj=settings)

    return run


@pytest.fixture
def evaluated(invoke: Invoke, tmp_path: Path, breast_cancer_data: Data) -> Path:
    """What ``evaluate`` wrote."""
    folder = tmp_path / "held_out"
    folder.mkdir()
    (folder / "schema.json").write_text(schema("breast_cancer").model_dump_json())
    np.savez(
        folder / "held_out.npz", X=breast_cancer_data[0][15:23], y=breast_cancer_data[1][15:23]
    )
    assert invoke("evaluate").exit_code == 0
    return tmp_path / "reports" / "report.json"


@pytest.fixture
def artifacts(breast_cancer_artifacts: Path) -> Path:
    return breast_cancer_artifacts / "artifacts"


def test_the_service_tells_of_the_model_and_is_asked_for_nothing_else(
    invoke: Invoke, evaluated: Path, tmp_path: Path, breast_cancer_service: FakeService
) -> None:
    breast_cancer_service.requests.clear()
    result = invoke("report", "--output", tmp_path / "new" / "report.html")
    assert result.exit_code == 0, result.output
    path = tmp_path / "new" / "report.html"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = Page(path.read_text())
    assert "8 of 8 predictions, 8 of 8 bit by bit." in found.text
    assert "runs under real encryption" in found.facts["Verification"]
    assert "Compiled" not in found.facts
    sent = [(request.method, request.url.path) for request in breast_cancer_service.requests]
    root = "/v2/models/breast_cancer"
    version = f"{root}/versions/1"
    assert sent == [("GET", root), ("GET", f"{version}/client"), ("GET", f"{version}/details")]


@pytest.mark.usefixtures("evaluated")
def test_a_registry_tells_more_and_nothing_need_run(
    invoke: Invoke, artifacts: Path, tmp_path: Path, breast_cancer_service: FakeService
) -> None:
    breast_cancer_service.requests.clear()
    path = tmp_path / "report.html"
    result = invoke("report", "--output", path, "--artifacts", artifacts, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "name": "breast_cancer",
        "version": 1,
        "path": str(path),
        "evaluated": True,
    }
    assert "runs under real encryption" in Page(path.read_text()).facts["Verification"]
    assert breast_cancer_service.requests == []
    # The same, but for the minute.
    result = invoke("report", "--output", "-", "--artifacts", artifacts)
    assert Page(result.stdout).tables == Page(path.read_text()).tables


def test_a_file_is_replaced_only_when_that_is_asked_for(
    invoke: Invoke, artifacts: Path, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_text("precious")
    arguments = ("report", "--output", path, "--artifacts", artifacts)
    result = invoke(*arguments)
    assert isinstance(result.exception, ReportError)
    assert "--force" in str(result.exception)
    assert path.read_text() == "precious"
    assert invoke(*arguments, "--force").exit_code == 0
    assert "Not evaluated yet" in Page(path.read_text()).text
    assert invoke("report", "--output", "-", "--json").exit_code == 2


def test_an_evaluation_of_another_version_is_left_out(
    invoke: Invoke, evaluated: Path, artifacts: Path, tmp_path: Path
) -> None:
    changed = json.loads(evaluated.read_text()) | {"version": 7}
    evaluated.write_text(json.dumps(changed))
    path = tmp_path / "report.html"
    result = invoke("report", "--output", path, "--artifacts", artifacts, "--json")
    assert json.loads(result.stdout)["evaluated"] is False
    found = Page(path.read_text())
    assert "(the last evaluation is of version 7 of breast_cancer)" in found.text
    assert "bit by bit" not in found.facts
    assert "How well it predicts" not in found.tables


@pytest.mark.usefixtures("evaluated")
def test_an_evaluation_may_be_elsewhere_and_must_be_there_then(
    invoke: Invoke, artifacts: Path, tmp_path: Path
) -> None:
    result = invoke(
        *("report", "--output", tmp_path / "report.html", "--artifacts", artifacts),
        *("--evaluation", tmp_path / "none.json"),
    )
    assert isinstance(result.exception, ReportError)
    assert "none.json is missing" in str(result.exception)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--version", 2), "there is no version 2"),
        (("--model", "other"), "nothing is published under other"),
    ],
)
def test_a_version_that_is_not_there(
    invoke: Invoke, artifacts: Path, tmp_path: Path, options: tuple[object, ...], told: str
) -> None:
    result = invoke(
        "report", "--output", tmp_path / "report.html", "--artifacts", artifacts, *options
    )
    assert isinstance(result.exception, CloisterError)
    assert told in str(result.exception)
    assert not (tmp_path / "report.html").exists()


def test_nothing_is_told_of_files_that_were_changed_or_are_not_compiled(
    invoke: Invoke, breast_cancer_artifacts: Path, tmp_path: Path
) -> None:
    arguments = ("report", "--output", tmp_path / "report.html", "--artifacts")
    result = invoke(*arguments, breast_cancer_artifacts / "models")
    assert "is not a compiled one" in str(result.exception)
    changed = shutil.copytree(breast_cancer_artifacts / "artifacts", tmp_path / "artifacts")
    card = changed / "breast_cancer" / "1" / CARD
    card.write_text(card.read_text().replace("breast_cancer", "lung_cancer"))
    result = invoke(*arguments, changed)
    assert isinstance(result.exception, CloisterError)
    assert "is not what was published" in str(result.exception)
    assert not (tmp_path / "report.html").exists()
