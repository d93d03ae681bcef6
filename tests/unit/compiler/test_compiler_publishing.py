"""When an artifact is published, and when nothing is."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloister_compiler import artifact as artifact_module
from cloister_compiler.artifact import Calibrate, publish_artifact
from cloister_compiler.selection import Precision
from cloister_shared.artifact import CARD, REFERENCE, WEIGHTS, ArtifactDetails
from cloister_shared.calibration import boundary_rows
from cloister_shared.errors import CloisterError
from cloister_shared.registry import Registry, Version
from cloister_shared.weights import LinearWeights

SETTINGS: dict[str, Any] = {
    "precision": Precision(6, 6, tolerance=0.5),
    "publish_reference": True,
    "verification_samples": 2,
}


Publish = Callable[..., Version]


@pytest.fixture
def publish(models: Registry, artifacts: Registry) -> Publish:
    """Publish the artifact of the current model, with changes to the settings."""

    def publish_current(**changes: Any) -> Version:
        return publish_artifact(models.open_current("small"), artifacts, **(SETTINGS | changes))

    return publish_current


def misses_the_extremes(coef: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """All features low, high or half way: their weights of both signs cancel."""
    return boundary_rows(coef.shape[1])


def test_a_second_run_does_no_work_and_keeps_the_version(
    models: Registry,
    artifacts: Registry,
    publish: Publish,
    publish_model: Callable[..., None],
    small: LinearWeights,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish_model(small)
    first = publish()
    with monkeypatch.context() as patched:
        patched.setattr(artifact_module, "compile_model", None)
        assert publish() == first
    assert artifacts.versions("small") == [1]

    changes: tuple[dict[str, Any], ...] = (
        {"precision": Precision(5, 6, tolerance=0.5)},
        {"precision": Precision(6, 5, tolerance=0.5)},
        {"precision": Precision(6, 6, tolerance=0.4)},
        {"publish_reference": False},
        {"verification_samples": 3},
    )
    for number, changed in enumerate(changes, start=2):
        assert publish(**changed).manifest.version == number
        assert artifacts.current("small") == number
    publish_model(small, parameters={"C": 0.2})
    assert publish().manifest.version == 7

    # Back to the first model and settings: its artifact is still there.
    models.promote("small", 1)
    assert publish() == first
    assert artifacts.current("small") == 1
    assert artifacts.versions("small") == [1, 2, 3, 4, 5, 6, 7]


def test_a_rollback_stays_until_something_new_is_published(
    artifacts: Registry,
    publish: Publish,
    publish_model: Callable[..., None],
    small: LinearWeights,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish_model(small)
    publish()
    publish_model(small, parameters={"C": 0.2})
    publish()
    artifacts.roll_back("small")
    with caplog.at_level("INFO", "cloister_compiler"):
        for _ in range(2):
            assert publish().manifest.version == artifacts.current("small") == 1
    assert "version 1 stays in use (rolled back from 2)" in caplog.messages
    publish_model(small, parameters={"C": 0.3})
    assert publish().manifest.version == artifacts.current("small") == 3


def test_a_deleted_artifact_stays_deleted_unless_it_is_asked_for(
    artifacts: Registry,
    publish: Publish,
    publish_model: Callable[..., None],
    small: LinearWeights,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish_model(small)
    publish()
    publish(verification_samples=3)
    artifacts.promote("small", 1)
    artifacts.delete("small", 2)
    for _ in range(2):
        assert publish(verification_samples=3).manifest.version == artifacts.current("small") == 1
    assert "CLOISTER_RETRAIN=true compiles it again; version 1 stays in use" in caplog.text
    assert publish(verification_samples=3, again=True).manifest.version == 3
    assert artifacts.current("small") == 3
    # It is there again, and so nothing is asked for any more.
    assert publish(verification_samples=3).manifest.version == 3
    # Of a model of which nothing is left nothing could be served.
    artifacts.delete_all("small")
    with pytest.raises(CloisterError, match="and deleted: CLOISTER_RETRAIN=true compiles it again"):
        publish()
    assert publish(again=True).manifest.version == artifacts.current("small") == 4


def test_another_version_of_a_library_compiles_anew(
    publish: Publish,
    publish_model: Callable[..., None],
    small: LinearWeights,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish_model(small)
    publish()
    monkeypatch.setattr(artifact_module, "version", lambda library: f"99 of {library}")
    assert publish().manifest.version == 2


def test_a_damaged_artifact_is_not_taken_for_published(
    publish: Publish, publish_model: Callable[..., None], small: LinearWeights
) -> None:
    publish_model(small)
    path = publish().file("server.zip")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CloisterError, match=r"server\.zip is not what was published.*delete sm"):
        publish()


def test_without_the_reference_there_is_none(
    publish: Publish, publish_model: Callable[..., None], small: LinearWeights
) -> None:
    publish_model(small)
    published = publish(publish_reference=False)
    assert not (published.path / REFERENCE).exists()
    with pytest.raises(CloisterError, match=r"has no file reference\.npz"):
        published.file(REFERENCE)


@pytest.mark.parametrize("refusing", ["range", "execution"])
@pytest.mark.parametrize("published_before", [False, True])
def test_a_circuit_that_overflows_is_not_published(
    artifacts: Registry,
    publish: Publish,
    publish_model: Callable[..., None],
    small: LinearWeights,
    monkeypatch: pytest.MonkeyPatch,
    refusing: str,
    published_before: bool,
) -> None:
    publish_model(small)
    if published_before:
        publish()
    # On the rows below its scores stay near 0, and elsewhere they are large.
    publish_model(LinearWeights(np.tile([1.0, -1.0], (3, 4)), np.zeros(3)))
    message = r"scores reach \[.*\], but the circuit's"
    if refusing == "execution":
        # The proof is taken away: what runs under encryption must show it by itself.
        monkeypatch.setattr(artifact_module, "check_range", lambda *_: None)
        message = r"of 11 encrypted results differ from the clear ones"
    calibrate: Calibrate = misses_the_extremes
    with pytest.raises(CloisterError, match=message):
        publish(calibrate=calibrate)
    assert artifacts.versions("small") == ([1] if published_before else [])
    assert artifacts.current("small") == (1 if published_before else None)
    if published_before:
        artifacts.open_current("small").verify()


@pytest.mark.parametrize(
    ("wrong", "changes", "message"),
    [
        (LinearWeights(np.ones((3, 7)), np.ones(3)), {}, r"coef has shape \(3, 7\), not \(3, 8\)"),
        (LinearWeights(np.ones((3, 8)), np.ones(4)), {}, "intercept has shape"),
        (LinearWeights(np.full((3, 8), np.nan), np.ones(3)), {}, "coef holds values that are not"),
        (LinearWeights(np.ones((3, 8)), np.full(3, np.inf)), {}, "intercept holds values that are"),
        (
            LinearWeights(np.ones((3, 8)), np.ones(3)),
            {"estimator": "GaussianNB"},
            "'GaussianNB' cannot be served encrypted",
        ),
        (
            LinearWeights(np.ones((3, 8)), np.ones(3)),
            {"parameters": {"colour": "red"}},
            "cannot compile .*unexpected keyword.*colour",
        ),
    ],
)
def test_a_model_that_cannot_be_compiled_is_refused(
    artifacts: Registry,
    publish: Publish,
    publish_model: Callable[..., None],
    make_card: Any,
    wrong: LinearWeights,
    changes: dict[str, Any],
    message: str,
) -> None:
    publish_model(wrong, make_card(np.ones((3, 8)), **changes))
    with pytest.raises(CloisterError, match=message):
        publish()
    assert artifacts.names() == []


def test_a_missing_or_damaged_model_is_named(
    models: Registry,
    artifacts: Registry,
    publish: Publish,
    publish_model: Callable[..., None],
    small: LinearWeights,
) -> None:
    with pytest.raises(CloisterError, match="nothing is published under small"):
        publish()
    models.publish("small", "empty", lambda _folder: {})
    with pytest.raises(CloisterError, match=r"has no file card\.json"):
        publish()

    def without_card(folder: Path) -> dict[str, Any]:
        (folder / CARD).write_text("{}")
        (folder / WEIGHTS).write_bytes(b"")
        return {}

    models.publish("small", "damaged", without_card)
    with pytest.raises(CloisterError, match=r"card\.json is not a model card"):
        publish()

    publish_model(small)
    path = models.open_current("small").file(WEIGHTS)
    small.write(path.with_name("other.npz"))
    path.write_bytes(b"x")
    with pytest.raises(CloisterError, match=r"weights\.npz is not what was published"):
        publish()
    assert artifacts.names() == []


def program_environment(folder: Path) -> dict[str, str]:
    return os.environ | {
        "CLOISTER_MODEL": "small",
        "CLOISTER_MODELS_DIR": str(folder / "models"),
        "CLOISTER_ARTIFACTS_DIR": str(folder / "artifacts"),
        "CLOISTER_BITS": "4",
        "CLOISTER_BITS_WEIGHTS": "5",
        "CLOISTER_TOLERANCE": "0.25",
        "CLOISTER_PUBLISH_REFERENCE": "false",
        "CLOISTER_VERIFICATION_SAMPLES": "3",
    }


def run_program(
    folder: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the compiler's program on the registries in ``folder``."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=program_environment(folder) | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_program_publishes_what_its_settings_say_and_exits_0(
    artifacts: Registry, publish_model: Callable[..., None], small: LinearWeights, tmp_path: Path
) -> None:
    publish_model(small)
    result = run_program(tmp_path, "-m", "cloister_compiler")
    assert result.returncode == 0, result.stderr
    assert "compiler: published version 1 of small" in result.stderr
    published = artifacts.open_current("small")
    published.verify()
    assert REFERENCE not in published.manifest.files
    details = ArtifactDetails.model_validate(published.manifest.details)
    assert (details.circuit.bits_inputs, details.circuit.bits_weights) == (4, 5)
    assert details.verification.random == 3


def test_bits_that_are_left_open_are_those_of_the_card(
    publish: Publish, publish_model: Callable[..., None], small: LinearWeights
) -> None:
    publish_model(small, bits=4)
    for precision, found in (
        (Precision(tolerance=0.5), (4, 4)),
        (Precision(weights=6, tolerance=0.5), (4, 6)),
    ):
        circuit = ArtifactDetails.model_validate(
            publish(precision=precision).manifest.details
        ).circuit
        assert (circuit.bits_inputs, circuit.bits_weights) == found


def test_the_program_chooses_bits_and_refuses_beyond_the_tolerance(
    artifacts: Registry, publish_model: Callable[..., None], small: LinearWeights, tmp_path: Path
) -> None:
    publish_model(small)
    refused = run_program(tmp_path, "-m", "cloister_compiler", CLOISTER_TOLERANCE="0.001")
    assert refused.returncode == 1
    assert "quantised at 4 bits for inputs and 5 for weights" in refused.stderr
    assert "CLOISTER_TOLERANCE allows 0.10 %" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert artifacts.names() == []
    chosen = run_program(tmp_path, "-m", "cloister_compiler", CLOISTER_BITS="auto")
    assert chosen.returncode == 0, chosen.stderr
    assert "the cheapest within 25.00 %" in chosen.stderr
    details = ArtifactDetails.model_validate(artifacts.open_current("small").manifest.details)
    assert 2 <= details.circuit.bits_inputs <= 8
    assert details.circuit.bits_weights == 5


def test_the_program_exits_1_when_it_refuses_a_circuit_that_it_ran(
    artifacts: Registry, publish_model: Callable[..., None], small: LinearWeights, tmp_path: Path
) -> None:
    publish_model(small)
    refusing = """
from cloister_compiler import __main__, artifact
from cloister_compiler.verification import check_execution
def check_other_scores(folder, reference, rows):
    object.__setattr__(reference, "bias", reference.bias + 1)
    check_execution(folder, reference, rows)
artifact.check_execution = check_other_scores
__main__.main()
"""
    result = run_program(tmp_path, "-c", refusing)
    assert "12 of 12 encrypted results differ from the clear ones" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.returncode == 1
    assert artifacts.names() == []


def test_a_run_that_was_killed_before_its_version_was_in_use_is_finished_by_the_next(
    artifacts: Registry, publish_model: Callable[..., None], small: LinearWeights, tmp_path: Path
) -> None:
    publish_model(small)
    run_program(tmp_path, "-m", "cloister_compiler")
    publish_model(small, parameters={"C": 0.2})
    killed = """
import os, signal
from cloister_compiler import __main__
from cloister_shared import registry
registry._write_current = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
__main__.main()
"""
    assert run_program(tmp_path, "-c", killed).returncode == -signal.SIGKILL
    assert artifacts.versions("small") == [1, 2]
    assert artifacts.current("small") == 1
    result = run_program(tmp_path, "-m", "cloister_compiler")
    assert "version 2 of small is compiled already" in result.stderr
    assert artifacts.current("small") == 2
    assert artifacts.versions("small") == [1, 2]


def test_the_program_rolls_back(
    artifacts: Registry, publish_model: Callable[..., None], small: LinearWeights, tmp_path: Path
) -> None:
    def write(folder: Path) -> dict[str, Any]:
        small.write(folder / WEIGHTS)
        return {}

    for version in (1, 2, 3):
        artifacts.publish("small", str(version), write)

    def rolled_back(*arguments: str) -> tuple[int, str]:
        result = run_program(tmp_path, "-m", "cloister_compiler", "rollback", *arguments)
        assert "Traceback" not in result.stderr
        return result.returncode, result.stderr

    code, shown = rolled_back("small")
    assert code == 0
    assert "compiler: version 2 of small is in use, before it was 3" in shown
    assert artifacts.current("small") == 2
    assert rolled_back("small", "1")[0] == 0
    assert artifacts.current("small") == 1
    for arguments, expected, reason in (
        (("small",), 1, "no version of small before 1"),
        (("other",), 1, "nothing is published under other"),
        (("small", "4"), 1, "there is no version 4"),
        (("small", "last"), 2, "invalid int value: 'last'"),
        ((), 2, "required: NAME"),
    ):
        code, shown = rolled_back(*arguments)
        assert (code, reason in shown) == (expected, True), shown
    (artifacts.open("small", 3).file(WEIGHTS)).write_bytes(b"x")
    code, shown = rolled_back("small", "3")
    assert code == 1
    assert "not what was published" in shown
    assert artifacts.current("small") == 1


def test_the_program_promotes_and_deletes(
    artifacts: Registry, publish_model: Callable[..., None], small: LinearWeights, tmp_path: Path
) -> None:
    def write(folder: Path) -> dict[str, Any]:
        small.write(folder / WEIGHTS)
        return {}

    for version in (1, 2, 3):
        artifacts.publish("small", str(version), write)

    def run(*arguments: str) -> tuple[int, str]:
        result = run_program(tmp_path, "-m", "cloister_compiler", *arguments)
        assert "Traceback" not in result.stderr
        return result.returncode, result.stderr

    for arguments, expected, told in (
        (("delete", "small", "3"), 1, "put another into use first, with `promote small 2`"),
        (("promote", "small", "1"), 0, "version 1 of small is in use, before it was 3"),
        (("delete", "small", "3"), 0, "deleted version 3 of small"),
        (("promote", "small", "3"), 1, "there is no version 3 of small"),
        (("delete", "small"), 1, "say which version of small is to be deleted ([1, 2])"),
        (("delete", "small", "1", "--force"), 1, "version 1 of small is in use"),
        (("promote", "small"), 2, "required: VERSION"),
        (("delete", "small", "--force"), 0, "deleted all of small: version 1, 2"),
        (("delete", "small", "--force"), 1, "nothing is published under small"),
    ):
        code, shown = run(*arguments)
        assert (code, told in shown) == (expected, True), shown
    assert artifacts.names() == []
