"""Data and compiled artifacts that several tests need, made once a session by the real code."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from cloister_shared.artifact import CARD, WEIGHTS
from cloister_shared.card import FinalMetrics, ModelCard
from cloister_shared.concrete import contain_concrete
from cloister_shared.datasets import DatasetName, schema
from cloister_shared.preprocessing import to_inputs
from cloister_shared.registry import Registry
from cloister_shared.schema import DatasetSchema, Feature
from cloister_shared.trees import Trees, ranks
from cloister_shared.weights import LinearWeights

# Else a run of the tests that fail ends with code 0, and one that loses a connection at once.
contain_concrete()

# A time limit an example would make the result depend on the machine's load.
settings.register_profile("cloister", deadline=None)
settings.load_profile("cloister")

Data = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


@pytest.fixture(scope="session")
def digits_data() -> Data:
    """Raw features, shape (1797, 64), and labels."""
    data = load_digits()
    return data.data, data.target


@pytest.fixture(scope="session")
def breast_cancer_data() -> Data:
    """Raw features, shape (569, 30), and labels as words."""
    data = load_breast_cancer()
    return data.data, data.target_names[data.target]


@pytest.fixture(scope="session")
def diabetes_data() -> Data:
    """Raw features, shape (442, 10), and targets."""
    data = load_diabetes(scaled=False)
    return data.data, data.target


def publish_fitted(root: Path, name: DatasetName, data: Data) -> None:
    """Fit centrally and publish the model under ``root / "models"``."""
    description = schema(name)
    unit, indices = to_inputs(data[0], description), description.class_indices(data[1])
    fitted = LogisticRegression(C=0.1, max_iter=1000).fit(unit, indices)
    card = ModelCard(
        name=name,
        estimator="LogisticRegression",
        parameters={"penalty": "l2", "C": 0.1, "max_iter": 1000},
        data=description,
        rounds=(),
        final=FinalMetrics(sites=1, accuracy=fitted.score(unit, indices), loss=0.1),
        libraries={},
        created=datetime.now(UTC),
    )

    def write(folder: Path) -> dict[str, Any]:
        (folder / CARD).write_text(card.model_dump_json())
        LinearWeights(fitted.coef_, fitted.intercept_).write(folder / WEIGHTS)
        return {}

    Registry(root / "models").publish(name, "fitted centrally", write)


@pytest.fixture(scope="session")
def compile_published() -> Callable[[Path, DatasetName], None]:
    """Compile the current model under ``root / "models"`` into ``root / "artifacts"``."""
    # Importing Concrete ML takes seconds: only the tests that compile pay for it.
    from cloister_compiler.artifact import publish_artifact  # noqa: PLC0415
    from cloister_compiler.selection import Precision  # noqa: PLC0415

    def compile_(root: Path, name: DatasetName) -> None:
        publish_artifact(
            Registry(root / "models").open_current(name),
            Registry(root / "artifacts"),
            precision=Precision(),
            publish_reference=True,
            verification_samples=4,
        )

    return compile_


@pytest.fixture(scope="session")
def digits_artifacts(
    tmp_path_factory: pytest.TempPathFactory,
    digits_data: Data,
    compile_published: Callable[[Path, DatasetName], None],
) -> Path:
    """A folder with models/ and artifacts/ that hold version 1 of ``digits``."""
    root = tmp_path_factory.mktemp("digits")
    publish_fitted(root, "digits", digits_data)
    compile_published(root, "digits")
    return root


@pytest.fixture(scope="session")
def breast_cancer_artifacts(
    tmp_path_factory: pytest.TempPathFactory,
    breast_cancer_data: Data,
    compile_published: Callable[[Path, DatasetName], None],
) -> Path:
    """A folder with models/ and artifacts/ that hold version 1 of ``breast_cancer``."""
    root = tmp_path_factory.mktemp("breast_cancer")
    publish_fitted(root, "breast_cancer", breast_cancer_data)
    compile_published(root, "breast_cancer")
    return root


@pytest.fixture(scope="session")
def tree_data() -> Data:
    """Raw features in centimetres, shape (150, 4), and labels as words."""
    data = load_iris()
    return data.data, data.target_names[data.target]


@pytest.fixture(scope="session")
def tree_artifacts(tmp_path_factory: pytest.TempPathFactory, tree_data: Data) -> Path:
    """A folder with artifacts/ that hold version 1 of ``tree``, which needs evaluation keys.

    ``clear.npy`` in it has what the quantised tree says of the rows in ``tree_data`` in the clear.
    """
    # Takes seconds to import.
    from cloister_compiler.tree import in_the_clear, publish_tree, quantise_trees  # noqa: PLC0415

    description = DatasetSchema(
        dataset="iris",
        features=tuple(
            Feature(name=name, low=low, high=high)
            for name, low, high in (
                ("sepal length", 4, 8),
                ("sepal width", 2, 5),
                ("petal length", 1, 7),
                ("petal width", 0, 3),
            )
        ),
        classes=("setosa", "versicolor", "virginica"),
    )
    unit, indices = to_inputs(tree_data[0], description), description.class_indices(tree_data[1])
    fitted = DecisionTreeClassifier(max_depth=2, random_state=0).fit(unit, indices)
    card = ModelCard(
        name="tree",
        estimator="DecisionTreeClassifier",
        parameters={"max_depth": 2},
        data=description,
        rounds=(),
        final=FinalMetrics(sites=1, accuracy=fitted.score(unit, indices), loss=0.1),
        libraries={},
        created=datetime.now(UTC),
    )
    root = tmp_path_factory.mktemp("tree")
    # Two bits make small keys, and every leaf is still reached.
    publish_tree(
        Registry(root / "artifacts"),
        card,
        fitted,
        bits=2,
        publish_reference=True,
        verification_samples=1,
    )
    trees = Trees.of(fitted)
    ranked = trees.ranked()
    taken = ranks(unit[:, ranked.features], ranked.edges).astype(np.float64)
    clear = in_the_clear(quantise_trees(card, ranked, 2), trees)
    np.save(root / "clear.npy", clear(taken))
    return root
