"""What an encrypted prediction of trees costs, by their number and depth, and by bits of leaves.

CPU seconds of one core, so that other work on the machine changes little. Trees are grown on random
labels, to their full depth: what is measured is what a depth costs at most.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
from concrete.fhe import EvaluationKeys, Value
from concrete.ml.deployment import FHEModelDev
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from cloister_compiler.runtime import FHEModelClient, FHEModelServer
from cloister_compiler.tree import compile_trees
from cloister_shared.boosting import trees_of
from cloister_shared.card import ModelCard
from cloister_shared.schema import DatasetSchema, Feature

N_FEATURES = 10
N_CLASSES = 3
ROWS = 2000
RUNS = 2
"""Evaluations whose mean is told; the first of all reads the keys, and is not among them."""


def grown(depth: int, trees: int) -> Any:
    """Return a tree, or a forest, of this depth."""
    random = np.random.default_rng(0)
    rows, labels = random.random((ROWS, N_FEATURES)), random.integers(N_CLASSES, size=ROWS)
    if trees == 1:
        return DecisionTreeClassifier(max_depth=depth, random_state=0).fit(rows, labels)
    forest = RandomForestClassifier(trees, max_depth=depth, random_state=0)
    return forest.fit(rows, labels)


def card_of(fitted: Any) -> ModelCard:
    """Return a card for it."""
    data = DatasetSchema(
        dataset="random",
        features=tuple(Feature(name=f"x{i}", low=0, high=1) for i in range(N_FEATURES)),
        classes=tuple(map(str, range(N_CLASSES))),
    )
    return ModelCard(
        name="random",
        estimator=type(fitted).__name__,
        parameters={"max_depth": fitted.max_depth},
        data=data,
        rounds=(),
        libraries={},
        created=datetime.now(UTC),
    )


def lines(fitted: Any, bits: int) -> Iterator[str]:
    """Measure one model: seconds to compile, to make keys, to evaluate; megabytes of keys."""
    start = time.process_time()
    ranked = trees_of(fitted).ranked()
    model = compile_trees(card_of(fitted), ranked, bits)
    yield f"{time.process_time() - start:7.1f}"
    with tempfile.TemporaryDirectory() as aside:
        FHEModelDev(aside, model).save()
        client, server = FHEModelClient(aside), FHEModelServer(aside)
        start = time.process_time()
        client.generate_private_and_evaluation_keys()
        keys = client.get_serialized_evaluation_keys()
        yield f"{time.process_time() - start:7.1f}"
        payload = client.quantize_encrypt_serialize(np.zeros((1, len(ranked.features))))
        yield from _evaluated(server, payload, keys)


def _evaluated(server: Any, payload: bytes, serialised: bytes) -> Iterator[str]:
    keys, value = EvaluationKeys.deserialize(serialised), Value.deserialize(payload)
    server.server.run(value, evaluation_keys=keys)
    start = time.process_time()
    for _ in range(RUNS):
        result = server.server.run(value, evaluation_keys=keys)
    yield f"{(time.process_time() - start) / RUNS:8.2f}"
    yield f"{len(serialised) / 1e6:7.1f}"
    yield f"{len(payload) / 1e3:7.1f}"
    yield f"{len(result.serialize()) / 1e3:7.1f}"


def main() -> None:
    """Print one line for each combination."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depths", type=int, nargs="+", default=[2, 3, 4, 5])
    parser.add_argument("--bits", type=int, nargs="+", default=[2, 4, 6, 8])
    parser.add_argument("--trees", type=int, nargs="+", default=[1])
    given = parser.parse_args()
    print("trees depth bits  compile   keys  evaluate  MB keys  KB up  KB down", flush=True)
    for trees in given.trees:
        for depth in given.depths:
            fitted = grown(depth, trees)
            for bits in given.bits:
                print(f"{trees:5} {depth:5} {bits:4}", *lines(fitted, bits), flush=True)


if __name__ == "__main__":
    main()
