"""Sites with shards of digits, and settings of a small training."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from federation import LocalGrid, Site
from flwr.supercore.task_identity import TaskIdentity

from cloister_dealer.deal import deal
from cloister_dealer.settings import Settings as DealerSettings
from cloister_trainer.settings import Settings


@pytest.fixture(autouse=True)
def task(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Flower sets in the processes that it starts."""
    for field in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, field, 1)


@pytest.fixture(scope="session")
def dealt_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds held-out/ and three sites' folders, 1/ to 3/."""
    folder = tmp_path_factory.mktemp("federation")
    settings = DealerSettings(
        shards=3, shards_dir=folder / "shards", held_out_dir=folder / "held-out"
    )
    dealt = deal(settings)
    for node in (1, 2, 3):
        site = folder / str(node)
        site.mkdir()
        shutil.copy(dealt.shard_path(settings.shards_dir, node - 1), site / "shard.npz")
        (site / "schema.json").write_text(dealt.data.model_dump_json())
    return folder


@pytest.fixture
def grid(dealt_folder: Path) -> LocalGrid:
    return LocalGrid({node: Site(dealt_folder / str(node)) for node in (1, 2, 3)})


MakeSettings = Callable[..., Settings]


@pytest.fixture
def make_settings(tmp_path: Path) -> MakeSettings:
    """Settings of three rounds with three sites under ``tmp_path``, with changes."""

    def make(**changes: Any) -> Settings:
        fields: dict[str, Any] = {
            "rounds": 3,
            "settle_seconds": 0,
            "start_deadline": 0.01,
            "models_dir": tmp_path / "models",
            "events_dir": tmp_path / "events",
            "checkpoints_dir": tmp_path / "checkpoints",
            "round_timeout": 0.5,
            "work_dir": tmp_path / "work",
            "superexec_secret": tmp_path / "superexec.secret",
            "insecure": True,
        }
        return Settings(**(fields | changes))

    return make
