"""Every command once, as real processes over one home: two sites, two models, one service."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

from cloister_shared.datasets import schema

SECONDS = 300


def cloister(home: Path, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "cloister_cli", *arguments],
        env=environment(home) | settings,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def environment(home: Path) -> dict[str, str]:
    stray = {name: value for name, value in os.environ.items() if "CLOISTER_" not in name}
    temporary = home.with_name("temporary")
    temporary.mkdir(exist_ok=True)
    return stray | {
        "CLOISTER_HOME": str(home),
        "CLOISTER_POLL_SECONDS": "0.1",
        "CLOISTER_DRAIN_SECONDS": "0",
        "CLOISTER_METRICS_PORT": "0",
        "TMPDIR": str(temporary),
        "OMP_NUM_THREADS": "1",
    }


def result(home: Path, *arguments: str, **settings: str) -> Any:
    """What a command prints as JSON, and nothing else, once it has ended well."""
    done = cloister(home, *arguments, "--json", **settings)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, breast_cancer_artifacts: Path) -> Path:
    """With digits trained across two sites, another model beside it, and both compiled."""
    home = tmp_path_factory.mktemp("cli") / "home"
    trained = result(home, "train", "--clients", "2", "--rounds", "2")
    assert trained == {"name": "digits", "version": 1}
    compiled = result(home, "compile", CLOISTER_VERIFICATION_SAMPLES="2")
    assert (compiled["name"], compiled["version"], compiled["in_use"]) == ("digits", 1, True)

    other = home / "models" / "breast_cancer"
    shutil.copytree(breast_cancer_artifacts / "models" / "breast_cancer", other)
    (other / "current").touch()
    compiled = result(home, "compile", CLOISTER_VERIFICATION_SAMPLES="2")
    assert (compiled["name"], compiled["version"]) == ("breast_cancer", 1)
    return home


@pytest.fixture
def own_home(home: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(home, tmp_path / "home"))


class Service:
    """``cloister serve`` over a home, at a free port."""

    def __init__(self, home: Path) -> None:
        self.log = home.with_name("serve.log")
        with self.log.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cloister_cli", "serve", "--port", "0"],
                env=environment(home),
                stderr=stream,
            )
        self.url = self._address()

    def _address(self) -> str:
        deadline = time.monotonic() + SECONDS
        while "Uvicorn running on http" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        told = self.log.read_text().partition("Uvicorn running on ")[2]
        return told.split()[0]

    def index(self) -> list[tuple[str, int]]:
        entries = httpx.post(f"{self.url}/v2/repository/index", timeout=60).json()
        return sorted((entry["name"], int(entry["version"])) for entry in entries)

    def in_use(self, name: str) -> tuple[int, str]:
        """The version that serves, and the digest of its client."""
        about = httpx.get(f"{self.url}/v2/models/{name}", timeout=60).json()["parameters"]
        return int(about["version"]), about["client_digest"]


Serve = Callable[[Path], Service]


@pytest.fixture
def serve() -> Iterator[Serve]:
    services: list[Service] = []

    def start(home: Path) -> Service:
        services.append(Service(home))
        return services[-1]

    yield start
    for service in services:
        service.process.kill()
        service.process.wait()


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def agrees(service: Service, home: Path) -> bool:
    """Whether the service and the registry say the same of every version."""
    listed = result(home, "models", "list")
    if service.index() != sorted((one["name"], one["version"]) for one in listed):
        return False
    return all(
        service.in_use(one["name"]) == (one["version"], one["client_digest"])
        for one in listed
        if one["in_use"]
    )


def test_what_is_trained_stays_and_nothing_else(home: Path) -> None:
    assert {path.name for path in home.iterdir()} >= {"models", "artifacts", "held-out", "events"}
    left = [path.name for path in home.with_name("temporary").iterdir()]
    assert left == []
    assert {path.name for path in (home / "held-out" / "digits").iterdir()} == {
        *("held_out.npz", "schema.json")
    }
    listed = result(home, "models", "list", "--trained")
    assert [(one["name"], one["version"], one["in_use"]) for one in listed] == [
        ("breast_cancer", 1, True),
        ("digits", 1, True),
    ]


def test_one_service_answers_for_two_models(home: Path, serve: Serve, tmp_path: Path) -> None:
    service = serve(home)
    for name, data in (("digits", load_digits()), ("breast_cancer", load_breast_cancer())):
        np.savetxt(tmp_path / f"{name}.csv", data.data[:4], delimiter=",")
        answer = result(
            *(home, "predict", str(tmp_path / f"{name}.csv")),
            *("--model", name, "--url", service.url),
        )
        assert (answer["name"], answer["version"]) == (name, 1)
        labels = list(schema(name).labels(data.target[:4]))  # type: ignore[arg-type]
        assert sum(a == b for a, b in zip(answer["predictions"], labels, strict=True)) >= 3
    plain = cloister(
        *(home, "predict", str(tmp_path / "digits.csv"), "--proba"),
        *("--model", "digits", "--url", service.url),
    )
    assert plain.returncode == 0
    table = np.loadtxt(plain.stdout.splitlines(), delimiter=",")
    assert table.shape == (5, 10)
    np.testing.assert_allclose(table[1:].sum(axis=1), 1)
    assert agrees(service, home)


def test_an_evaluation_is_a_report(home: Path, serve: Serve) -> None:
    service = serve(home)
    report = result(
        *(home, "evaluate", "--model", "digits", "--samples", "6", "--url", service.url)
    )
    assert (report["model"], report["evaluated"]) == ("digits", 6)
    assert report["agreement"] == {"samples": 6, "equal_scores": 6, "equal_predictions": 6}
    assert json.loads((home / "reports" / "digits.json").read_text()) == report
    assert report["evaluator"] == "native"
    assert sum(pair["samples"] for pair in report["confusion"]["labels"]) == 6
    page = home / "reports" / "digits.html"
    told = result(home, "report", "--model", "digits", "--force")
    assert told == {"name": "digits", "version": 1, "path": str(page), "evaluated": True}
    assert "6 of 6 predictions, 6 of 6 bit by bit." in page.read_text()
    # Another model, of the service alone.
    stranger = home.with_name("stranger")
    told = result(
        *(stranger, "report", "--model", "breast_cancer", "--url", service.url),
        *("--output", str(stranger / "there.html")),
    )
    assert (told["version"], told["evaluated"]) == (1, False)


def test_a_running_service_follows_what_is_chosen_and_deleted(
    own_home: Path, serve: Serve, tmp_path: Path
) -> None:
    again = {"CLOISTER_VERIFICATION_SAMPLES": "3"}
    assert result(own_home, "compile", "--model", "digits", **again)["version"] == 2
    service = serve(own_home)
    assert agrees(service, own_home)
    assert service.in_use("digits")[0] == 2
    for arguments, told in (
        (("promote", "digits", "1"), "version 1 of digits is in use, before it was 2"),
        (("delete", "digits", "2"), "deleted version 2 of digits"),
        (("delete", "breast_cancer", "--force"), "deleted all of breast_cancer: version 1"),
    ):
        done = cloister(own_home, "models", *arguments)
        assert (done.returncode, done.stdout, told in done.stderr) == (0, "", True), done.stderr
        eventually(lambda: agrees(service, own_home))
    assert service.index() == [("digits", 1)]
    np.savetxt(tmp_path / "rows.csv", load_breast_cancer().data[:1], delimiter=",")
    gone = cloister(
        *(own_home, "predict", str(tmp_path / "rows.csv")),
        *("--model", "breast_cancer", "--url", service.url),
    )
    assert (gone.returncode, gone.stdout) == (1, "")
    assert "there is no model breast_cancer" in gone.stderr
    assert "Traceback" not in gone.stderr
    # Another run of the same does not bring it back, and says what would.
    once_more = cloister(own_home, "compile", "--model", "digits", **again)
    assert once_more.returncode == 0
    assert "CLOISTER_RETRAIN=true compiles it again; version 1 stays in use" in once_more.stderr
    assert service.in_use("digits")[0] == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_service_that_is_told_to_stop_ends_well(
    home: Path, serve: Serve, number: signal.Signals
) -> None:
    service = serve(home)
    service.in_use("digits")
    service.process.send_signal(number)
    assert service.process.wait(60) == 0


def test_equal_rows_train_once_and_other_ones_again(own_home: Path) -> None:
    assert (own_home / "deal.key").stat().st_mode & 0o777 == 0o600
    arguments = ("train", "--clients", "2", "--rounds", "2")
    assert result(own_home, *arguments)["version"] == 1
    assert result(own_home, *arguments, CLOISTER_SEED="1")["version"] == 2
    # What was trained of the first rows is there still.
    again = cloister(own_home, *arguments)
    assert "version 1 of digits is trained already" in again.stderr, again.stderr[-3000:]


def test_what_is_known_of_a_version_is_shown(home: Path) -> None:
    shown = result(home, "models", "show", "digits", "1")
    assert [one["sites"] for one in shown["card"]["rounds"]] == [2, 2]
    assert shown["manifest"]["details"]["model_version"] == 1
    trained = result(home, "models", "show", "digits", "--trained")
    assert trained["card"] == shown["card"]
    assert set(trained["manifest"]["files"]) == {"card.json", "weights.npz"}
    text = cloister(home, "models", "show", "breast_cancer")
    assert text.returncode == 0
    assert "mean radius" in text.stdout
    for name, arguments in (("digits", ("7",)), ("other", ())):
        missing = cloister(home, "models", "show", name, *arguments)
        assert (missing.returncode, missing.stdout) == (1, "")
        assert f"no version {' '.join((*arguments, 'of'))}" in missing.stderr
    assert cloister(home, "models", "show", "digits", "last").returncode == 2


def test_a_schema_is_shown_and_may_be_begun_from(home: Path) -> None:
    shown = result(home, "schema", "show", "diabetes")
    assert schema("diabetes") == schema("diabetes").model_validate(shown)
    text = cloister(home, "schema", "show", "diabetes").stdout.splitlines()
    assert text[0] == "diabetes, a regression: a target from 1 to 360"
    assert text[3].split() == ["age", "low", "18,", "high", "80"]
    unknown = cloister(home, "schema", "show", "what")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "there is no dataset 'what'; use one of: digits" in unknown.stderr


def test_sites_may_have_rows_of_their_own(tmp_path: Path) -> None:
    data = load_diabetes(scaled=False)
    own = schema("diabetes").model_copy(update={"dataset": "own"})
    folders: list[str] = []
    for site, rows in enumerate(np.array_split(np.arange(len(data.data)), 2)):
        folder = tmp_path / f"site-{site}"
        folder.mkdir()
        (folder / "schema.json").write_text(own.model_dump_json())
        names = ",".join([*(one.name for one in own.features), "label"])
        table = np.column_stack([data.data[rows], data.target[rows]])
        np.savetxt(folder / "rows.csv", table, delimiter=",", header=names, comments="")
        folders += ["--data", str(folder)]
    home = tmp_path / "home"
    trained = result(home, "train", *folders, "--estimator", "Ridge")
    assert trained == {"name": "own", "version": 1}
    assert not (home / "held-out").exists()


def test_a_training_that_fails_says_why(tmp_path: Path) -> None:
    failed = cloister(tmp_path / "home", "train", "--dataset", "nonsense", "--json")
    assert (failed.returncode, failed.stdout) == (1, "")
    message = failed.stderr[failed.stderr.index("the training failed") :]
    assert "CLOISTER_DATASET: " in message
    assert "Traceback" not in failed.stderr
