"""What is kept of an unfinished training, and what of it is taken up again."""

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloister_shared.card import RoundMetrics
from cloister_shared.datasets import schema
from cloister_shared.errors import CloisterError
from cloister_shared.models import linear
from cloister_shared.standardising import Standardisation
from cloister_shared.weights import LinearWeights
from cloister_trainer.checkpoint import Checkpoint, Checkpoints

DATA = schema("digits")


def checkpoint(rounds: int = 2, seed: int = 0) -> Checkpoint:
    generator = np.random.default_rng(seed)
    return Checkpoint(
        weights=LinearWeights(generator.normal(size=(10, 64)), generator.normal(size=10)),
        rounds=tuple(
            RoundMetrics(round=n, sites=3, failures=1, accuracy=0.5, loss=1 / 3, seconds=0.1)
            for n in range(1, rounds + 1)
        ),
        strategy={
            "m_t.coef": generator.normal(size=(10, 64)),
            "v_t.intercept": np.full(10, 1e-300),
        },
        privacy={"rounds": rounds},
        standardisation=standardisation(64, generator) if seed else None,
    )


def standardisation(inputs: int, generator: np.random.Generator) -> Standardisation:
    means, deviations = generator.random((2, inputs)).tolist()
    return Standardisation(means=tuple(means), deviations=tuple(deviations))


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "new" / "checkpoints", "digits", "inputs", 4)


def test_all_of_it_comes_back_to_the_last_bit(checkpoints: Checkpoints) -> None:
    assert checkpoints.load(DATA) is None
    for kept in (checkpoint(1), checkpoint(1, seed=1), checkpoint(2, seed=2)):
        checkpoints.save(kept)
        found = checkpoints.load(DATA)
        assert found is not None
        assert np.array_equal(linear(found.weights).coef, linear(kept.weights).coef)
        assert np.array_equal(linear(found.weights).intercept, linear(kept.weights).intercept)
        assert found.rounds == kept.rounds
        assert found.privacy == kept.privacy
        assert found.standardisation == kept.standardisation
        assert set(found.strategy) == set(kept.strategy)
        for name, array in kept.strategy.items():
            assert np.array_equal(found.strategy[name], array)
    assert [path.name for path in checkpoints.path.parent.iterdir()] == ["digits.npz"]
    checkpoints.discard()
    assert checkpoints.load(DATA) is None
    checkpoints.discard()


def test_means_of_other_inputs_are_none_to_go_on_with(
    checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture
) -> None:
    other = standardisation(63, np.random.default_rng(0))
    checkpoints.save(replace(checkpoint(), standardisation=other))
    assert checkpoints.load(DATA) is None
    assert "is of 63 inputs, and digits has 64): beginning with round 1" in caplog.text


def flipped(content: bytes) -> bytes:
    # In the middle of the first array.
    middle = len(content) // 3
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut": lambda content: content[: len(content) // 2],
    "its end is cut": lambda content: content[:-1],
    "a bit": flipped,
    "no archive": lambda _: b"something else",
    "a pickle": lambda _: b"\x80\x04K\x01.",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_told_and_not_used(
    checkpoints: Checkpoints, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints.save(checkpoint())
    checkpoints.path.write_bytes(DAMAGES[damage](checkpoints.path.read_bytes()))
    assert checkpoints.load(DATA) is None
    assert "is damaged" in caplog.text
    assert "beginning with round 1" in caplog.text


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_of_a_private_training_is_refused(
    checkpoints: Checkpoints, damage: str
) -> None:
    """What was spent is in it."""
    checkpoints.save(checkpoint())
    checkpoints.path.write_bytes(DAMAGES[damage](checkpoints.path.read_bytes()))
    with pytest.raises(CloisterError, match="spent of the privacy budget: CLOISTER_RESUME=false"):
        checkpoints.load(DATA, private=True)


def test_one_that_cannot_be_read_is_not_taken_for_damaged(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints.save(checkpoint())

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(np, "load", fail)
    with pytest.raises(OSError, match="Input/output"):
        checkpoints.load(DATA)


def test_one_without_a_part_is_damaged(
    checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints.save(checkpoint())
    with np.load(checkpoints.path) as archive:
        arrays = dict(archive)
    for part in ("coef", "intercept", "header"):
        np.savez(checkpoints.path, **{name: a for name, a in arrays.items() if name != part})
        assert checkpoints.load(DATA) is None
    arrays["header"] = np.frombuffer(b'{"format": 2}', np.uint8)
    np.savez(checkpoints.path, **arrays)
    assert checkpoints.load(DATA) is None
    assert caplog.text.count("is damaged") == 4


def test_weights_that_are_no_model_of_these_data_are_damaged(
    checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints.save(checkpoint())
    assert checkpoints.load(schema("mnist")) is None
    assert "coef has shape" in caplog.text


def test_one_of_other_settings_is_told_and_not_used(
    checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints.save(checkpoint())
    folder = checkpoints.path.parent
    assert Checkpoints(folder, "digits", "others", 4).load(DATA) is None
    assert "other settings, 2 rounds of it" in caplog.text
    assert Checkpoints(folder, "another-model", "inputs", 4).load(DATA) is None


def test_one_of_a_training_that_is_published_is_not_used(checkpoints: Checkpoints) -> None:
    checkpoints.save(checkpoint())
    assert Checkpoints(checkpoints.path.parent, "digits", "inputs", 5).load(DATA) is None
