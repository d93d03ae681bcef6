"""A real deal of digits, and folders of single sites."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloister_dealer.deal import Deal, deal
from cloister_dealer.settings import Settings
from cloister_shared.datasets import DatasetName, schema

WriteSite = Callable[..., Path]


@pytest.fixture(scope="session")
def dealer_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("dealer")
    return Settings(shards=3, shards_dir=folder / "shards", held_out_dir=folder / "held-out")


@pytest.fixture(scope="session")
def dealt(dealer_settings: Settings) -> Deal:
    return deal(dealer_settings)


@pytest.fixture
def write_site(tmp_path: Path) -> WriteSite:
    """Write a site's folder with these rows."""

    def write(features: Any, labels: Any, dataset: DatasetName = "digits") -> Path:
        folder = tmp_path / "site"
        folder.mkdir(exist_ok=True)
        np.savez(folder / "shard.npz", X=features, y=labels)
        (folder / "schema.json").write_text(schema(dataset).model_dump_json())
        return folder

    return write
