"""Which version serves while versions come, break, change and go."""

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cloister_inference.observability.metrics import Metrics
from cloister_inference.problems import ProblemError, UnavailableError, UnknownError, UnloadedError
from cloister_inference.serving.poller import Poller
from cloister_inference.serving.repository import (
    NOT_LOADED,
    RETRY_REFUSED_SECONDS,
    Repository,
    State,
)
from cloister_shared.errors import CloisterError
from cloister_shared.registry import CURRENT, Registry, Version

BROKEN = b"broken"
LOADED = "loaded version 2 of model: native (it stands for one)"


class Loaded:
    """Stands for a model: of which the repository looks at its version and its evaluator."""

    circuit = SimpleNamespace(name="native")
    evaluation = SimpleNamespace(reason="it stands for one")

    def __init__(self, published: Version) -> None:
        self.version = published.manifest.version


class Artifacts:
    """A registry, a repository that follows it, and what was loaded in order."""

    def __init__(self, root: Path, keep: int = 4) -> None:
        self.registry = Registry(root)
        self.root = root
        self.metrics = Metrics()
        self.now = 100.0
        self.loads: list[tuple[str, int]] = []
        # What tests put in the place of `load`.
        self.loader: Callable[[Version], Any] = self.load
        self.repository = Repository(
            self.registry,
            self._load,
            self.metrics,
            keep=keep,
            clock=lambda: self.now,
        )

    def _load(self, published: Version) -> Any:
        return self.loader(published)

    def load(self, published: Version) -> Any:
        self.loads.append((published.manifest.name, published.manifest.version))
        if published.file("file").read_bytes() == BROKEN:
            raise CloisterError("it is broken")
        return Loaded(published)

    def publish(self, name: str = "model", content: bytes = b"good") -> int:
        def write(folder: Path) -> dict[str, Any]:
            (folder / "file").write_bytes(content)
            return {}

        return self.registry.publish(name, "inputs", write).manifest.version

    def write(self, version: int, content: bytes) -> None:
        (self.root / "model" / str(version) / "file").write_bytes(content)

    def serving(self, name: str = "model") -> int:
        return self.repository.get(name).version

    def states(self) -> dict[int, str]:
        return {state.version: state.reason for state in self.repository.states()}

    def counted(self, result: str) -> float | None:
        labels = {"model": "model", "result": result}
        return self.metrics.registry.get_sample_value("cloister_model_loads_total", labels)


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    """One version of ``model``, not yet looked at."""
    made = Artifacts(tmp_path / "artifacts")
    made.publish()
    return made


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    """Return the repository's lines since the last time."""

    def lines() -> list[str]:
        found = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return found

    with caplog.at_level(logging.INFO, "cloister_inference"):
        yield lines


class TestANewVersion:
    def test_is_loaded_by_a_look_and_not_by_a_request(self, artifacts: Artifacts) -> None:
        assert artifacts.repository.loaded("model") is None
        artifacts.repository.look()
        assert artifacts.serving() == 1
        artifacts.publish()
        # Until then the version that served goes on.
        assert artifacts.serving() == 1
        assert artifacts.loads == [("model", 1)]
        artifacts.repository.look()
        assert artifacts.loads == [("model", 1), ("model", 2)]
        assert artifacts.serving() == 2
        artifacts.repository.look()
        assert len(artifacts.loads) == 2
        assert artifacts.counted("loaded") == 2
        assert artifacts.counted("refused") is None

    def test_serves_in_the_place_of_the_former_once_it_is_loaded(
        self, artifacts: Artifacts
    ) -> None:
        artifacts.repository.look()
        artifacts.publish()
        during: list[int] = []
        load = artifacts.load

        def asked_meanwhile(published: Version) -> Any:
            with ThreadPoolExecutor(1) as pool:
                during.append(pool.submit(artifacts.serving).result(timeout=30))
            return load(published)

        artifacts.loader = asked_meanwhile
        artifacts.repository.look()
        assert during == [1]
        assert artifacts.serving() == 2

    def test_leaves_the_former_to_those_who_name_it(self, artifacts: Artifacts) -> None:
        artifacts.repository.look()
        artifacts.publish()
        artifacts.publish()
        artifacts.repository.look()
        assert artifacts.repository.get("model", "1").version == 1
        assert artifacts.repository.loaded("model", "2") is None
        assert artifacts.repository.get("model", "2").version == 2
        assert artifacts.loads == [("model", 1), ("model", 3), ("model", 2)]

    def test_of_a_model_unheard_of_is_loaded_by_its_first_request(
        self, artifacts: Artifacts
    ) -> None:
        artifacts.repository.look()
        artifacts.publish("other")
        assert artifacts.serving("other") == 1

    def test_is_followed_by_a_rollback(self, artifacts: Artifacts) -> None:
        artifacts.publish()
        artifacts.repository.look()
        artifacts.registry.roll_back("model")
        artifacts.repository.look()
        assert artifacts.serving() == 1


class TestABrokenVersion:
    def test_is_refused_once_and_the_last_good_one_goes_on(
        self, artifacts: Artifacts, log: Callable[[], list[str]]
    ) -> None:
        artifacts.repository.look()
        artifacts.publish(content=BROKEN)
        log()
        for _ in range(3):
            artifacts.repository.look()
            assert artifacts.serving() == 1
        assert log() == ["version 2 of model is refused: it is broken"]
        assert artifacts.counted("refused") == 1
        assert artifacts.states() == {1: "", 2: "it is broken"}
        with pytest.raises(UnavailableError, match="version 2 of model cannot be served: it is br"):
            artifacts.repository.get("model", "2")
        assert artifacts.loads == [("model", 1), ("model", 2)]

    def test_is_tried_again_when_its_files_change(
        self, artifacts: Artifacts, log: Callable[[], list[str]]
    ) -> None:
        artifacts.repository.look()
        artifacts.publish(content=BROKEN)
        artifacts.repository.look()
        log()
        artifacts.write(2, BROKEN)
        artifacts.repository.look()
        assert log() == ["version 2 of model is refused: it is broken"]
        artifacts.write(2, b"mended")
        assert artifacts.states() == {1: "", 2: NOT_LOADED}
        artifacts.repository.look()
        assert artifacts.serving() == 2
        assert log() == [
            LOADED,
            "version 2 of model serves after 1",
        ]

    def test_is_tried_again_after_a_while(
        self, artifacts: Artifacts, log: Callable[[], list[str]]
    ) -> None:
        artifacts.write(1, BROKEN)
        artifacts.repository.look()
        log()
        artifacts.now += RETRY_REFUSED_SECONDS - 1
        artifacts.repository.look()
        assert log() == []
        artifacts.now += 1
        artifacts.repository.look()
        assert log() == ["version 1 of model is refused: it is broken"]

    def test_is_replaced_by_the_newest_older_one_at_a_fresh_start(
        self, artifacts: Artifacts, log: Callable[[], list[str]]
    ) -> None:
        artifacts.publish()
        for _ in range(2):
            artifacts.publish(content=BROKEN)
        log()
        artifacts.repository.look()
        assert artifacts.serving() == 2
        assert log() == [
            "version 4 of model is refused: it is broken",
            "version 3 of model is refused: it is broken",
            LOADED,
            "version 2 of model serves",
            "version 2 of model serves instead of 4",
        ]
        artifacts.repository.look()
        assert log() == []
        assert artifacts.states() == {1: NOT_LOADED, 2: "", 3: "it is broken", 4: "it is broken"}

    def test_stops_nothing_else(self, artifacts: Artifacts) -> None:
        artifacts.write(1, BROKEN)
        artifacts.publish("other")
        artifacts.repository.look()
        assert artifacts.serving("other") == 1
        assert artifacts.repository.any_servable()
        with pytest.raises(UnavailableError, match="it is broken"):
            artifacts.serving()

    def test_may_be_broken_in_a_way_nobody_thought_of(
        self, artifacts: Artifacts, log: Callable[[], list[str]]
    ) -> None:
        def fail(_published: Version) -> Any:
            raise ZeroDivisionError("a secret of the house")

        artifacts.loader = fail
        for _ in range(2):
            artifacts.repository.look()
        assert log() == ["version 1 of model is refused"]
        with pytest.raises(UnavailableError, match="ZeroDivisionError; the service's log says mor"):
            artifacts.serving()

    def test_may_be_missing(self, artifacts: Artifacts, log: Callable[[], list[str]]) -> None:
        artifacts.repository.look()
        (artifacts.root / "model" / CURRENT).write_text("7\n")
        log()
        for _ in range(2):
            artifacts.repository.look()
        assert artifacts.serving() == 1
        (line,) = log()
        assert "version 7 of model is refused: there is no version 7" in line


class TestLoadedVersions:
    def test_are_no_more_than_stated_besides_the_current_ones(self, tmp_path: Path) -> None:
        artifacts = Artifacts(tmp_path, keep=2)
        for _ in range(5):
            artifacts.publish()
        artifacts.repository.look()

        def loaded() -> set[int]:
            return {version for version, reason in artifacts.states().items() if not reason}

        for version in "12":
            artifacts.repository.get("model", version)
        assert loaded() == {1, 2, 5}
        # The least recently used goes, and asking counts as use.
        assert artifacts.repository.loaded("model", "1") is not None
        artifacts.repository.get("model", "3")
        assert loaded() == {1, 3, 5}
        artifacts.publish()
        artifacts.repository.look()
        assert loaded() == {3, 5, 6}
        assert artifacts.serving() == 6

    def test_load_once_each(self, artifacts: Artifacts) -> None:
        all_asked = threading.Barrier(8)
        a_second_load = threading.Barrier(2)
        load = artifacts.load

        def slowly(published: Version) -> Any:
            # Leaves time for another one to begin, which none must.
            with suppress(threading.BrokenBarrierError):
                a_second_load.wait(timeout=0.5)
            return load(published)

        artifacts.loader = slowly

        def ask(_: int) -> object:
            all_asked.wait()
            return artifacts.repository.get("model")

        with ThreadPoolExecutor(8) as pool:
            models = set(pool.map(ask, range(8)))
        assert artifacts.loads == [("model", 1)]
        assert len(models) == 1


class TestARegistryThatIsGone:
    def test_leaves_what_is_loaded_serving(
        self, artifacts: Artifacts, log: Callable[[], list[str]]
    ) -> None:
        artifacts.repository.look()
        log()
        away = artifacts.root.rename(artifacts.root.with_name("away"))
        for _ in range(2):
            artifacts.repository.look()
            assert artifacts.serving() == 1
            assert artifacts.repository.get("model", "1").version == 1
            assert artifacts.repository.versions("model") == [1]
            assert artifacts.states() == {1: ""}
            assert artifacts.repository.any_servable()
        (line,) = log()
        assert "it no longer holds model; what is loaded goes on serving" in line
        away.rename(artifacts.root)
        artifacts.publish()
        artifacts.repository.look()
        assert artifacts.serving() == 2
        assert log()[-1] == "the registry of artifacts is as it should be again"

    def test_leaves_what_is_loaded_serving_when_it_cannot_be_read(
        self, artifacts: Artifacts, log: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_arguments: object) -> Any:
            raise PermissionError("not yours")

        artifacts.repository.look()
        log()
        with monkeypatch.context() as patched:
            for method in ("names", "versions", "current"):
                patched.setattr(artifacts.registry, method, refuse)
            for _ in range(2):
                artifacts.repository.look()
                assert artifacts.serving() == 1
                assert artifacts.states() == {1: ""}
                assert artifacts.repository.versions("model") == [1]
            (line,) = log()
            assert "it cannot be read: not yours; what is loaded goes on serving" in line
            with pytest.raises(UnavailableError, match="cannot be read"):
                artifacts.repository.get("other")
        artifacts.repository.look()
        assert log() == ["the registry of artifacts is as it should be again"]

    def test_is_unavailable_where_nothing_is_loaded(
        self, artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_arguments: object) -> Any:
            raise PermissionError("not yours")

        for method in ("names", "versions", "current", "open"):
            monkeypatch.setattr(artifacts.registry, method, refuse)
        assert not artifacts.repository.any_servable()
        asked: tuple[Callable[[], object], ...] = (
            artifacts.repository.states,
            lambda: artifacts.repository.versions("model"),
            lambda: artifacts.repository.get("model"),
            lambda: artifacts.repository.get("model", "1"),
            lambda: artifacts.repository.load("model"),
            lambda: artifacts.repository.unload("model"),
        )
        for ask in asked:
            with pytest.raises(UnavailableError, match="cannot be read"):
                ask()


class TestADeletedVersion:
    def test_is_let_go_by_a_look_and_unknown_from_then_on(
        self, artifacts: Artifacts, log: Callable[[], list[str]]
    ) -> None:
        artifacts.publish()
        artifacts.repository.look()
        older = artifacts.repository.get("model", "1")
        artifacts.registry.delete("model", 1)
        log()
        # Whoever evaluates with it goes on until then, and holds on to it.
        assert artifacts.repository.get("model", "1") is older
        artifacts.repository.look()
        assert log() == ["let version 1 of model go: it was deleted"]
        assert artifacts.repository.loaded("model", "1") is None
        with pytest.raises(UnknownError, match="there is no version 1 of model"):
            artifacts.repository.get("model", "1")
        assert artifacts.repository.versions("model") == [2]
        assert artifacts.states() == {2: ""}
        assert artifacts.serving() == 2
        artifacts.repository.look()
        assert log() == []

    def test_takes_its_model_along_where_all_are_deleted(
        self, artifacts: Artifacts, log: Callable[[], list[str]]
    ) -> None:
        artifacts.publish("other")
        artifacts.repository.look()
        artifacts.registry.delete_all("model")
        log()
        artifacts.repository.look()
        assert log() == ["let version 1 of model go: it was deleted"]
        for version in (None, "1"):
            with pytest.raises(UnknownError, match="there is no"):
                artifacts.repository.get("model", version)
        assert artifacts.repository.versions("model") == []
        assert artifacts.serving("other") == 1
        assert artifacts.repository.any_servable()
        artifacts.publish()
        artifacts.repository.look()
        assert artifacts.serving() == 2

    def test_is_unknown_where_it_goes_while_it_is_loaded(self, artifacts: Artifacts) -> None:
        artifacts.publish()
        artifacts.repository.look()

        def deleted_meanwhile(published: Version) -> Any:
            artifacts.registry.delete("model", 1)
            return artifacts.load(published)

        artifacts.loader = deleted_meanwhile
        with pytest.raises(UnknownError, match="there is no version 1 of model"):
            artifacts.repository.get("model", "1")
        assert artifacts.counted("refused") is None

    def test_leaves_nothing_current_that_is_not_there(self, artifacts: Artifacts) -> None:
        """As where a deletion of all versions was killed before its end."""
        artifacts.registry.delete_all("model")
        (artifacts.root / "model" / CURRENT).write_text("1\n")
        with pytest.raises(UnknownError, match="there is no model"):
            artifacts.serving()


class TestUnload:
    def test_stays_whatever_the_registry_says(self, artifacts: Artifacts) -> None:
        artifacts.publish()
        artifacts.repository.look()
        artifacts.repository.get("model", "1")
        artifacts.repository.unload("model")
        artifacts.publish()
        loads = len(artifacts.loads)
        artifacts.repository.look()
        for version in (None, "1", "2", "3"):
            assert artifacts.repository.loaded("model", version) is None
            with pytest.raises(UnloadedError, match="repository/models/model/load"):
                artifacts.repository.get("model", version)
        assert len(artifacts.loads) == loads
        assert not artifacts.repository.any_servable()
        assert all("is unloaded" in reason for reason in artifacts.states().values())
        artifacts.repository.load("model")
        assert artifacts.serving() == 3

    def test_of_a_model_that_is_being_loaded_stays_too(self, artifacts: Artifacts) -> None:
        load = artifacts.load

        def unloaded_meanwhile(published: Version) -> Any:
            artifacts.repository.unload("model")
            return load(published)

        artifacts.loader = unloaded_meanwhile
        artifacts.repository.look()
        with pytest.raises(UnloadedError):
            artifacts.serving()
        assert not artifacts.repository.any_servable()

    def test_of_what_was_never_published_is_unknown(self, artifacts: Artifacts) -> None:
        for name in ("other", "../x"):
            with pytest.raises(UnknownError, match="there is no model"):
                artifacts.repository.unload(name)


class TestLoad:
    def test_looks_at_once(self, artifacts: Artifacts) -> None:
        artifacts.repository.look()
        artifacts.publish()
        assert artifacts.repository.load("model").version == artifacts.serving() == 2
        assert artifacts.repository.load("model").version == 2
        assert artifacts.loads == [("model", 1), ("model", 2)]

    def test_says_why_it_cannot_and_what_serves(self, artifacts: Artifacts) -> None:
        artifacts.publish(content=BROKEN)
        with pytest.raises(UnavailableError, match="it is broken; version 1 goes on serving"):
            artifacts.repository.load("model")
        assert artifacts.serving() == 1
        artifacts.publish("other", BROKEN)
        with pytest.raises(UnavailableError, match=r"cannot be served: it is broken$"):
            artifacts.repository.load("other")

    def test_tries_what_was_refused_again(self, artifacts: Artifacts) -> None:
        artifacts.publish(content=BROKEN)
        artifacts.repository.look()
        for _ in range(2):
            with pytest.raises(UnavailableError):
                artifacts.repository.load("model")
        assert artifacts.loads.count(("model", 2)) == 3

    def test_of_a_version_leaves_the_current_one_serving(self, artifacts: Artifacts) -> None:
        artifacts.publish()
        artifacts.repository.look()
        assert artifacts.repository.load("model", "1").version == 1
        assert artifacts.repository.loaded("model", "1") is not None
        assert artifacts.serving() == 2

    def test_of_what_was_never_published_is_unknown(self, artifacts: Artifacts) -> None:
        asked: tuple[tuple[str, str | None], ...] = (
            ("other", None),
            ("model", "2"),
            ("model", "01"),
            ("../x", "1"),
            ("../x", None),
        )
        for name, version in asked:
            for ask in (artifacts.repository.load, artifacts.repository.get):
                with pytest.raises(UnknownError):
                    ask(name, version)
        assert artifacts.loads == []


def test_the_index_loads_nothing(artifacts: Artifacts) -> None:
    artifacts.publish()
    artifacts.publish("other")
    assert artifacts.repository.states() == [
        State("model", 1, NOT_LOADED),
        State("model", 2, ""),
        State("other", 1, ""),
    ]
    assert ("model", 1) not in artifacts.loads


def test_a_poller_goes_on_after_a_failure_until_it_is_stopped() -> None:
    calls: list[int] = []
    enough = threading.Event()

    def call() -> None:
        calls.append(len(calls))
        if len(calls) == 3:
            enough.set()
        raise ProblemError("a defect")

    poller = Poller(call, 0.001).start()
    assert enough.wait(30)
    poller.stop()
    made = len(calls)
    enough.clear()
    assert not enough.wait(0.05)
    assert len(calls) == made
