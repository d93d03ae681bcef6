"""The browser's client, and a service that it queries."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from javascript import JavaScript, running
from models import MADE_UP

from cloister_cli.processes import Processes, free_ports
from cloister_shared.artifact import CARD, WEIGHTS
from cloister_shared.card import ModelCard
from cloister_shared.registry import Registry
from cloister_shared.weights import LinearWeights

PAGE = "http://127.0.0.1"


@pytest.fixture(scope="session")
def javascript(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JavaScript]:
    with running(tmp_path_factory.mktemp("deno")) as calls:
        yield calls


@pytest.fixture(scope="session")
def web_artifacts(
    tmp_path_factory: pytest.TempPathFactory,
    digits_artifacts: Path,
    breast_cancer_artifacts: Path,
) -> Path:
    """Artifacts of ``digits``, ``breast_cancer`` and of models with weights that are made up."""
    # Importing Concrete ML takes seconds.
    from cloister_compiler.artifact import publish_artifact  # noqa: PLC0415
    from cloister_compiler.selection import Precision  # noqa: PLC0415

    root = tmp_path_factory.mktemp("web")
    for fitted in (digits_artifacts, breast_cancer_artifacts):
        shutil.copytree(fitted / "artifacts", root / "artifacts", dirs_exist_ok=True)
    models, rng = Registry(root / "models"), np.random.default_rng(0)
    for one in MADE_UP:
        coef = rng.normal(size=(one.data.n_outputs, one.data.n_inputs))
        # Zero in the middle of the inputs, so that every class is predicted for some.
        weights = LinearWeights(coef, -coef.sum(axis=1) / 2)

        def write(
            folder: Path, one: ModelCard = one, weights: LinearWeights = weights
        ) -> dict[str, Any]:
            (folder / CARD).write_text(one.model_dump_json())
            weights.write(folder / WEIGHTS)
            return {}

        models.publish(one.name, "made up", write)
        publish_artifact(
            models.open_current(one.name),
            Registry(root / "artifacts"),
            precision=Precision(),
            publish_reference=True,
            verification_samples=2,
        )
    return root / "artifacts"


@pytest.fixture(scope="session")
def page_port() -> int:
    """At which the page may be served."""
    (port,) = free_ports(1)
    return port


@pytest.fixture(scope="session")
def url(
    web_artifacts: Path, page_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Of a service with these artifacts, which the page may query."""
    (port,) = free_ports(1)
    with Processes(tmp_path_factory.mktemp("service"), {}) as processes:
        service = processes.start(
            "inference",
            "cloister_inference",
            port=port,
            artifacts_dir=web_artifacts,
            metrics_port=0,
            drain_seconds=0,
            cors_origins=f"{PAGE}:{page_port}",
        )
        service.wait_healthy(f"http://127.0.0.1:{port}/v2/health/ready", 120)
        yield f"http://127.0.0.1:{port}"
