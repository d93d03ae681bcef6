"""The native client at other widths and shapes, over the stock server, in every direction."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_service import FakeService, stock_server

from cloister_keyholder.encryption.client import ClientSetting
from cloister_keyholder.package.content import open_package
from cloister_shared.artifact import CARD, REFERENCE, WEIGHTS
from cloister_shared.card import ModelCard
from cloister_shared.reference import Reference
from cloister_shared.registry import Registry
from cloister_shared.weights import LinearWeights

# Bits of inputs and weights, inputs, scores: from the smallest circuit to one of many inputs.
CASES = [(2, 1, 1), (3, 5, 2), (4, 40, 3), (6, 120, 10), (8, 300, 1)]
ROWS = 25
CLIENTS: tuple[ClientSetting, ...] = ("native", "concrete")


@pytest.fixture(scope="module", params=CASES, ids=str)
def service(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    make_card: Callable[..., ModelCard],
) -> FakeService:
    """A service of a model of random weights, compiled."""
    from cloister_compiler.artifact import publish_artifact  # noqa: PLC0415 - takes seconds
    from cloister_compiler.selection import Precision  # noqa: PLC0415

    bits, n_features, n_outputs = request.param
    rng = np.random.default_rng(bits)
    coef = rng.normal(size=(n_outputs, n_features))
    # Two scores are those of one class against the other, which scikit-learn has as one.
    n_outputs = 1 if n_outputs == 2 else n_outputs
    coef = coef[:n_outputs]
    root = tmp_path_factory.mktemp("widths")
    models, artifacts = Registry(root / "models"), Registry(root / "artifacts")

    def write(folder: Path) -> dict[str, Any]:
        (folder / CARD).write_text(make_card(coef).model_dump_json())
        LinearWeights(coef, rng.normal(size=n_outputs)).write(folder / WEIGHTS)
        return {}

    models.publish("small", "made up", write)
    published = publish_artifact(
        models.open_current("small"),
        artifacts,
        precision=Precision(inputs=bits, weights=bits, tolerance=1.0),
        publish_reference=True,
        verification_samples=4,
    )
    return FakeService(published.path, stock_server(published.path))


def test_every_direction_gives_the_clear_scores(service: FakeService) -> None:
    native, concrete = (open_package(service.client_zip, client).circuit for client in CLIENTS)
    reference = Reference.read(service.folder / REFERENCE)
    n_inputs = reference.coef.shape[1]
    random = np.random.default_rng(0).random((ROWS, n_inputs))
    ends = np.array([np.zeros(n_inputs), np.ones(n_inputs), np.arange(n_inputs) % 2])
    rows = reference.quantise(np.vstack([random, ends]))
    compact = service.details.circuit.compact
    for row, expected in zip(rows, reference.integer_scores(rows), strict=True):
        for one, other in [(native, native), (native, concrete), (concrete, native)]:
            query = one.encrypt(row)
            held = other.read_key(query.key.export())
            np.testing.assert_array_equal(held.decrypt(service.run(query.ciphertext)), expected)
        if compact:
            query = native.encrypt(row, compact=compact)
            found = query.decrypt(service.run_compact(query.ciphertext))
            np.testing.assert_array_equal(found, expected)


def test_messages_and_keys_are_concretes_at_every_size(service: FakeService) -> None:
    native, concrete = (open_package(service.client_zip, client).circuit for client in CLIENTS)
    key = concrete.client.new_key()
    again = native.read_key(key.export())
    assert again.export() == key.export()
    row = np.zeros(native.specs.n_features, dtype=np.int64)
    ours, theirs = native.encrypt(row).ciphertext, concrete.encrypt(row).ciphertext
    ciphertexts = slice(64, 64 + 24 * len(row))
    assert len(ours) == len(theirs)
    assert ours[: ciphertexts.start] == theirs[: ciphertexts.start]
    assert ours[ciphertexts.stop :] == theirs[ciphertexts.stop :]
