"""Digests of files and of JSON values."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister_shared.digests import digest_bytes, digest_file, digest_json

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def reversed_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(item) for item in value] if isinstance(value, list) else value


@given(values)
def test_a_json_digest_depends_on_the_value_alone(value: Any) -> None:
    digest = digest_json(value)
    assert digest_json(reversed_keys(value)) == digest
    assert digest_json(json.loads(json.dumps(value, indent=3))) == digest


@given(values, values)
def test_different_json_values_have_different_digests(one: Any, other: Any) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (digest_json(one) == digest_json(other)) == same


def test_the_canonical_form_is_fixed() -> None:
    # Published manifests hold such digests: another form would compile every model anew.
    text = b'{"a":[1,2.5,null],"b":"\\u00fc"}'
    assert digest_json({"b": "ü", "a": [1, 2.5, None]}) == hashlib.sha256(text).hexdigest()


@pytest.mark.parametrize("value", [float("nan"), [float("inf")]])
def test_a_value_that_json_cannot_write_has_no_digest(value: Any) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest_json(value)
    with pytest.raises(TypeError):
        digest_json({"a": {1, 2}})


def test_a_file_has_the_digest_of_its_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    expected = hashlib.sha256(content).hexdigest()
    assert digest_file(tmp_path / "file") == digest_bytes(content) == expected
    with pytest.raises(FileNotFoundError):
        digest_file(tmp_path / "none")
