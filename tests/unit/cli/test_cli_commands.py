"""What the commands take, and what they start."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cloister_cli import __main__ as cli
from cloister_cli.__main__ import app
from cloister_cli.commands import Command
from cloister_cli.federation import environment

COMMANDS = (
    *("train", "tune", "compile", "serve", "predict", "evaluate", "report", "demo"),
    *("models list", "models show", "models promote", "models rollback", "models delete"),
    "schema show",
)


@dataclass
class Started:
    """What a command started."""

    line: list[str]
    environment: dict[str, str]

    def settings(self) -> dict[str, str]:
        return {key: value for key, value in self.environment.items() if "CLOISTER_" in key}


Start = Callable[..., Started]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Start:
    """Run a command in an empty folder up to where it starts a service's."""
    for name in list(os.environ):
        if name.startswith("CLOISTER_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def start_(*arguments: str) -> Started:
        became: list[Started] = []

        def become(_path: str, line: list[str], environment: dict[str, str]) -> None:
            became.append(Started(line[1:], environment))
            raise SystemExit(0)

        def run_here(command: Command, environment: dict[str, str]) -> int:
            became.append(Started(command.line[1:], {**environment, **command.variables}))
            return 0

        with monkeypatch.context() as patched:
            patched.setattr(os, "execve", become)
            patched.setattr(cli, "run_here", run_here)
            result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        return became[0]

    return start_


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.stdout, result.stderr


def put_into_use(registry: Path, name: str, version: int = 1) -> None:
    (registry / name / str(version)).mkdir(parents=True)
    (registry / name / "current").write_text(f"{version}\n")


def test_paths_are_those_of_the_home_wherever_it_is(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_into_use(tmp_path / "cloister" / "artifacts", "digits")
    put_into_use(tmp_path / "other" / "artifacts", "digits")

    def folders(folder: Path) -> dict[str, str]:
        return {
            "CLOISTER_MODEL": "digits",
            "CLOISTER_HELD_OUT_DIR": str(folder / "held-out" / "digits"),
            "CLOISTER_REPORT_PATH": str(folder / "reports" / "digits.json"),
            "CLOISTER_KEY_STORE_DIR": str(folder / "query-keys"),
            "CLOISTER_WAIT_SECONDS": "60",
        }

    assert start("evaluate").settings() == folders(tmp_path / "cloister")
    assert start("evaluate", "--home", "other").settings() == folders(tmp_path / "other")
    monkeypatch.setenv("CLOISTER_HOME", "other")
    started = start("evaluate").settings()
    assert started.pop("CLOISTER_HOME") == "other"
    assert started == folders(tmp_path / "other")


def test_an_option_becomes_a_setting_and_what_is_not_given_is_left_to_the_service(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_into_use(tmp_path / "cloister" / "models", "digits")
    plain = start("compile")
    assert plain.line == ["-m", "cloister_compiler"]
    assert plain.settings() == {
        "CLOISTER_MODEL": "digits",
        "CLOISTER_MODELS_DIR": str(tmp_path / "cloister" / "models"),
        "CLOISTER_ARTIFACTS_DIR": str(tmp_path / "cloister" / "artifacts"),
    }
    # What is wrong with a value its service says.
    monkeypatch.setenv("CLOISTER_TOLERANCE", "0.5")
    given = start("compile", "--model", "mine", "--bits", "x", "--retrain", "--json")
    assert given.line == ["-m", "cloister_compiler", "--json"]
    changed = dict(given.settings().items() - plain.settings().items())
    assert changed == {
        "CLOISTER_MODEL": "mine",
        "CLOISTER_BITS": "x",
        "CLOISTER_RETRAIN": "True",
        "CLOISTER_TOLERANCE": "0.5",
    }
    served = start("serve", "--host", "::1", "--port", "0").settings()
    assert (served["CLOISTER_HOST"], served["CLOISTER_PORT"]) == ("::1", "0")
    assert "CLOISTER_MODEL" not in served


def test_a_training_takes_settings_but_no_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOISTER_STRATEGY", "FedMedian")
    monkeypatch.setenv("CLOISTER_HOST", "192.0.2.1")
    (tmp_path / "one").mkdir()
    kept = environment(tmp_path / "one", settings=True)
    assert kept["CLOISTER_STRATEGY"] == "FedMedian"
    assert "CLOISTER_HOST" not in kept
    (tmp_path / "two").mkdir()
    assert not any("CLOISTER_" in key for key in environment(tmp_path / "two", settings=False))


FAKE = """
import os, pathlib, signal
(pathlib.Path(__file__).parent / f"pid-{os.getpid()}").touch()
signal.pause()
"""


def test_a_report_is_of_the_home_or_of_a_service(start: Start, tmp_path: Path) -> None:
    home = tmp_path / "cloister"
    put_into_use(home / "artifacts", "digits")
    page, artifacts = str(home / "reports" / "digits.html"), str(home / "artifacts")
    started = start("report")
    assert started.line == [
        *("-m", "cloister_keyholder", "report"),
        *("--output", page, "--artifacts", artifacts),
    ]
    assert started.settings()["CLOISTER_MODEL"] == "digits"
    assert started.settings()["CLOISTER_REPORT_PATH"] == str(home / "reports" / "digits.json")
    given = ["--version", "2", "--output", "-", "--force", "--json"]
    assert start("report", *given).line[3:] == [
        *("--output", "-", "--version", "2", "--artifacts", artifacts),
        *("--force", "--json"),
    ]
    elsewhere = start("report", "--model", "other", "--url", "http://there", "--output", "a.html")
    assert elsewhere.line[3:] == ["--output", "a.html"]
    assert elsewhere.settings()["CLOISTER_URL"] == "http://there"
    assert elsewhere.settings()["CLOISTER_MODEL"] == "other"


def test_without_a_model_there_is_nothing_to_report(tmp_path: Path) -> None:
    code, out, error = run("report", "--home", str(tmp_path))
    assert (code, out) == (1, "")
    assert f"there is no compiled model in {tmp_path / 'artifacts'}" in error


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_a_compilation_and_leaves_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "cloister_compiler.py").write_text(FAKE)
    (tmp_path / "temporary").mkdir()
    changes = {"PYTHONPATH": str(tmp_path), "TMPDIR": str(tmp_path / "temporary")}
    with subprocess.Popen(
        [sys.executable, "-m", "cloister_cli", "compile", "--model", "any"],
        env=os.environ | changes,
        stderr=subprocess.PIPE,
        text=True,
    ) as compiling:
        deadline = time.monotonic() + 60
        while not (found := list(tmp_path.glob("pid-*"))):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        compiling.send_signal(number)
        _, error = compiling.communicate()
    assert (compiling.returncode, error) == (128 + number, "")
    with pytest.raises(ProcessLookupError):
        os.kill(int(found[0].name[4:]), 0)
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("models list --json", "cloister_compiler list --json"),
        ("models list --trained", "cloister_trainer.versions list"),
        ("models show digits", "cloister_compiler show digits"),
        ("models show digits 2 --json", "cloister_compiler show digits 2 --json"),
        ("models show digits --trained --json", "cloister_trainer.versions show digits --json"),
        ("models promote digits 2", "cloister_compiler promote digits 2"),
        ("models promote digits 2 --trained", "cloister_trainer.versions promote digits 2"),
        ("models rollback digits", "cloister_compiler rollback digits"),
        ("models delete digits 1", "cloister_compiler delete digits 1"),
        ("models delete digits --force", "cloister_compiler delete digits --force"),
        ("schema show digits --json", "cloister_dealer.schemas digits --json"),
        ("schema infer a.csv --label b --help", "cloister_client infer a.csv --label b --help"),
        ("predict a.csv --proba", "cloister_keyholder predict a.csv --proba"),
        ("predict a.csv --json", "cloister_keyholder predict a.csv --json"),
        ("evaluate --json", "cloister_keyholder evaluate --json"),
        ("import a.skops --schema b --help", "cloister_trainer.imports a.skops --schema b --help"),
        (f"tune {__file__} --json", "cloister_trainer.tuning --json"),
        (f"train --local --data {__file__}", "cloister_trainer.local"),
        (f"train --local --data {__file__} --json", "cloister_trainer.local --json"),
    ],
)
def test_a_command_is_a_services_own(start: Start, command: str, line: str) -> None:
    assert start(*command.split()).line == ["-m", *line.split()]


def test_the_model_is_the_one_that_came_into_use_last(start: Start, tmp_path: Path) -> None:
    models, artifacts = tmp_path / "cloister" / "models", tmp_path / "cloister" / "artifacts"
    for moment, name in enumerate(("b", "c", "a")):
        for registry in (models, artifacts):
            put_into_use(registry, name)
            os.utime(registry / name / "current", (moment, moment))
    os.utime(models / "b" / "current", (9, 9))
    assert start("compile").settings()["CLOISTER_MODEL"] == "b"
    assert start("predict", "x.csv").settings()["CLOISTER_MODEL"] == "a"
    assert start("predict", "x.csv", "--model", "c").settings()["CLOISTER_MODEL"] == "c"
    # Of a service elsewhere nothing need be at home.
    elsewhere = start("predict", "x.csv", "--home", "none", "--url", "http://there").settings()
    assert "CLOISTER_MODEL" not in elsewhere
    assert elsewhere["CLOISTER_URL"] == "http://there"


def test_what_is_given_to_a_tuning_or_a_local_training_reaches_it(start: Start) -> None:
    parameters = '{"penalty": "l1"}'
    same = ["--schema", __file__, "--estimator", "Ridge", "--parameters", parameters]
    tuned = start("tune", __file__, *same, "--tolerance", "0.1", "--output", "there").settings()
    assert tuned["CLOISTER_DATA_PATH"] == tuned["CLOISTER_SCHEMA_PATH"] == __file__
    assert tuned["CLOISTER_TUNE_TOLERANCE"] == "0.1"
    assert tuned["CLOISTER_TUNED_DIR"] == "there"
    local = start("train", "--local", "--data", __file__, *same, "--grid", "{}", "--model", "m")
    found = local.settings()
    assert found["CLOISTER_DATA_PATH"] == found["CLOISTER_SCHEMA_PATH"] == __file__
    assert found["CLOISTER_ESTIMATOR_PARAMETERS"] == parameters
    assert (found["CLOISTER_GRID"], found["CLOISTER_MODEL"]) == ("{}", "m")
    assert found["CLOISTER_MODELS_DIR"].endswith("/cloister/models")


def test_without_a_model_there_is_nothing_to_compile(tmp_path: Path) -> None:
    code, out, error = run("compile", "--home", str(tmp_path))
    assert (code, out) == (1, "")
    assert error == f"there is no model in {tmp_path / 'models'}: `cloister train` trains one\n"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("train --clients 0", "--clients"),
        ("train --data /nowhere", "--data"),
        ("train --schema /etc/hostname", "needs --data"),
        ("train --local", "one file"),
        ("train --grid {}", "needs --local"),
        (f"train --data {__file__}", "needs --schema"),
        (f"train --data {__file__} --data /tmp", "one file"),
        ("tune /nowhere.csv", "nowhere.csv"),
        ("train --mnist-path /nowhere.npz", "--mnist-path"),
        ("demo --samples -1", "--samples"),
        ("compile --what", "No such option"),
        ("models show", "Missing argument"),
        ("models promote digits", "Missing argument"),
        ("predict", "Missing argument"),
        ("what", "No such command"),
    ],
)
def test_wrong_usage_exits_2_and_says_how(command: str, told: str) -> None:
    code, out, error = run(*command.split())
    assert (code, out) == (2, "")
    assert told in error


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example_in_its_help(command: str) -> None:
    code, out, _ = run(*command.split(), "--help")
    assert code == 0
    assert f"Example: cloister {command}" in out


def test_the_help_tells_of_exit_codes_and_completion() -> None:
    code, out, _ = run("--help")
    assert code == 0
    text = " ".join(out.split())
    for told in ("0 done", "1 failed", "2 wrong usage", "130 interrupted", "143 terminated"):
        assert told in text
    assert "--install-completion" in out


def test_completions_are_typers_own() -> None:
    environment = os.environ | {"_CLOISTER_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("cloister"))],
        env=environment | {"COMP_WORDS": "cloister mod"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["models"]


def test_help_loads_no_service_and_nothing_that_takes_long() -> None:
    code = (
        "import sys, cloister_cli.__main__\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "print(sorted(name for name in loaded if name.startswith('cloister')), 'httpx' in loaded,"
        " 'pydantic' in loaded, 'numpy' in loaded)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['cloister_cli'] False False False\n"
