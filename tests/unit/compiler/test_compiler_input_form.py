"""The fixed form of inputs is found, or the circuit is refused."""

from pathlib import Path

import numpy as np
import pytest
from concrete.ml.deployment import FHEModelDev
from concrete.ml.sklearn import DecisionTreeClassifier

from cloister_compiler.payload import payload_form
from cloister_shared.errors import CloisterError


def test_a_circuit_that_needs_evaluation_keys_is_refused(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).random((50, 2))
    tree = DecisionTreeClassifier(n_bits=2, max_depth=1)
    tree.fit(rows, (rows[:, 0] > 0.5).astype(int))
    tree.compile(rows)
    FHEModelDev(str(tmp_path), tree).save()
    with pytest.raises(CloisterError, match="needs evaluation keys; only linear models"):
        payload_form(tmp_path, 2)
