"""``infer``: a schema to begin with, which tells no row's values."""

import contextlib
import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_wine

from cloister_client.data.check import check_folder
from cloister_client.data.infer import infer
from cloister_client.data.sample import Table, read_sample
from cloister_client.settings import Settings
from cloister_shared.errors import CloisterError
from cloister_shared.schema import Category, DatasetSchema, Feature, Target

PEOPLE: Table = {
    "patient_id": [str(1000 + 7 * row) for row in range(40)],
    "name": [f"person {row}" for row in range(40)],
    "age": [str(20 + 37 * row % 50) for row in range(40)],
    "bmi": ["" if row == 3 else f"{18.5 + row % 13}" for row in range(40)],
    "sex": ["female" if row % 2 else "male" for row in range(40)],
    "ward": [str(row % 3) for row in range(40)],
    "country": ["one"] * 40,
    "note": [""] * 40,
    "outcome": ["yes" if row % 3 else "no" for row in range(40)],
}


def test_columns_are_taken_for_what_they_look_like() -> None:
    guess = infer(PEOPLE, "outcome", None, "people")
    assert guess.schema == DatasetSchema(
        dataset="people",
        features=(
            Feature(name="age", low=19, high=70),
            Feature(name="bmi", low=17, high=32),
            Category(name="sex", categories=("female", "male")),
            Feature(name="ward", low=0, high=3),
        ),
        label="outcome",
        classes=("no", "yes"),
    )
    assert list(guess.seen) == [*(name for name in PEOPLE if name != "outcome"), "outcome"]
    for column, what in {
        "patient_id": "never repeat, as identifiers do",
        "name": "text that hardly repeats",
        "bmi": "1 of 40 rows lack it",
        "ward": "3 kinds, a category if they are codes",
        "country": "one value only",
        "note": "it is empty",
        "outcome": "the label, 2 classes",
    }.items():
        assert what in guess.seen[column]


def test_a_few_texts_that_hardly_repeat_are_no_category() -> None:
    table: Table = {
        "town": [f"town {row % 15}" for row in range(20)],
        "age": list(range(30, 50)),
        "y": [0, 1] * 10,
    }
    guess = infer(table, "y", None, "people")
    assert [feature.name for feature in guess.schema.features] == ["age"]
    assert "hardly repeats" in guess.seen["town"]


@pytest.mark.parametrize(
    ("labels", "task", "expected"),
    [
        ([str(value % 3) for value in range(40)], None, (0, 1, 2)),
        ([float(value % 3) for value in range(40)], None, (0, 1, 2)),
        ([value % 12 for value in range(40)], None, tuple(range(12))),
        ([True, False] * 20, None, ("False", "True")),
        ([0.5 * value for value in range(40)], None, Target(low=0, high=21)),
        ([value % 3 for value in range(40)], "regression", Target(low=0, high=2.1)),
        ([-1.25, 3.5] * 20, None, Target(low=-1.4, high=3.6)),
    ],
)
def test_labels_are_classes_or_a_target(labels: list[Any], task: Any, expected: Any) -> None:
    found = infer(PEOPLE | {"outcome": labels}, "outcome", task, "people").schema
    assert (found.target or found.classes) == expected


@pytest.mark.parametrize(
    ("table", "label", "task", "told"),
    [
        (PEOPLE, "absent", None, "no column 'absent': .* --label; there are 'patient_id', 'name'"),
        (PEOPLE, "name", None, "'name' has 40 different labels in 40 rows: it cannot be the class"),
        (PEOPLE, "country", None, "'country' has 1 different labels"),
        (PEOPLE, "country", "regression", "'country' has no different numbers"),
        ({"a": ["x"] * 4, "y": ["0", "1"] * 2}, "y", None, "no column can be a feature"),
    ],
)
def test_what_says_nothing_is_told(table: Table, label: str, task: Any, told: str) -> None:
    with pytest.raises(CloisterError, match=told):
        infer(table, label, task, "people")


numbers = st.floats(-1e9, 1e9) | st.integers(-100, 100).map(float)


@given(st.lists(numbers, min_size=2).filter(lambda found: len(set(found)) > 1))
def test_bounds_hold_every_value_and_tell_none(values: list[float]) -> None:
    table: Table = {"a": values, "y": ["0", "1"] * len(values)}
    try:
        (feature,) = infer(table, "y", None, "one").schema.features
    except CloisterError as error:
        assert "never repeat" in str(error)  # noqa: PT017 - the other outcome
        return
    assert isinstance(feature, Feature)
    assert feature.low < min(values) or feature.low == 0 == min(values)
    assert feature.low <= min(values)
    assert feature.high > max(values)


def write(folder: Path, kind: str, table: Table) -> Path:
    path = folder / f"people.{kind}"
    if kind == "parquet":
        pa_parquet.write_table(pa.table(table), path)
    elif kind == "npz":
        *features, labels = table.values()
        np.savez(path, X=np.array(features).T, y=labels)
    else:
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, delimiter=";")
            writer.writerow(table)
            writer.writerows(zip(*table.values(), strict=True))
    return path


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cloister_client", "infer", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_writes_a_schema_that_the_same_rows_fit(tmp_path: Path) -> None:
    wine = load_wine()
    table = dict(zip(wine.feature_names, wine.data.T.tolist(), strict=True))
    table["cultivar"] = wine.target_names[wine.target].tolist()
    path = write(tmp_path, "csv", table)
    output = tmp_path / "schema.json"
    ended = run(path, "--label", "cultivar", "--name", "wine", "--output", output)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == ""
    assert "to be checked by hand" in ended.stderr
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        check_folder(Settings(shard_dir=tmp_path), tmp_path, "refuse")
    assert "fits wine: 178 rows, 13 features" in said.getvalue()

    again = run(path, "--label", "cultivar", "--output", output)
    assert (again.returncode, again.stdout) == (1, "")
    assert "give --force to overwrite it" in again.stderr
    assert run(path, "--label", "cultivar", "--output", output, "--force").returncode == 0
    assert json.loads(output.read_text())["dataset"] == "people"


def test_what_the_command_cannot_read_is_told_on_standard_error(tmp_path: Path) -> None:
    ended = run(tmp_path / "absent.csv")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "cannot be read" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert run().returncode == 2


@pytest.mark.parametrize("kind", ["csv", "parquet", "npz"])
def test_every_format_gives_the_same_columns(kind: str, tmp_path: Path) -> None:
    found = list(read_sample(write(tmp_path, kind, PEOPLE)).values())
    assert found == list(PEOPLE.values())


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no rows to guess"),
        (b"a,b\n", "no rows to guess"),
        (b"a,a\n1,2\n", "no two of them alike"),
        (b"a,\n1,2\n", "must name every column"),
        (b"a,b\n1,2\n1\n", "a line has 1 cells, and the line of names has 2"),
        (b"a,b\n\xff,2\n", "not text in UTF-8"),
        (b"PAR1 and so on", "cannot be read as Parquet"),
        (b"PK\x03\x04 and so on", "must be an .npz"),
    ],
)
def test_a_file_that_is_no_table_is_told(content: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(content)
    with pytest.raises(CloisterError, match=told):
        read_sample(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(4, 1500), length=st.integers(1, 8))
def test_a_damaged_parquet_file_gives_a_table_or_a_reason(
    at: int, length: int, tmp_path: Path
) -> None:
    with contextlib.suppress(CloisterError):
        read_sample(damaged(write(tmp_path, "parquet", PEOPLE), at, length))


def test_a_parquet_file_whose_content_is_damaged_is_told(tmp_path: Path) -> None:
    path = damaged(write(tmp_path, "parquet", PEOPLE), 4, 8)
    told = "cannot be read as Parquet: it is damaged"
    with pytest.raises(CloisterError, match=told):
        read_sample(path)
    path = write(tmp_path, "parquet", {"text": ["letters", "words"], "y": [0, 1]})
    # No text in UTF-8.
    path.write_bytes(path.read_bytes().replace(b"letters", b"\xff" * 7))
    with pytest.raises(CloisterError, match=told):
        read_sample(path)


def damaged(path: Path, at: int, length: int) -> Path:
    """Change bytes of a file, but none of the last, which say what it is."""
    content = bytearray(path.read_bytes())
    for position in range(at, min(at + length, len(content) - 8)):
        content[position] ^= 0xFF
    path.write_bytes(content)
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60) | st.text(alphabet='ab,;"\n1. é').map(str.encode))
def test_any_file_gives_a_schema_or_a_reason(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(b"a,b,label\n1,x,0\n2,y,1\n" + content)
    with contextlib.suppress(CloisterError):
        infer(read_sample(path), "label", None, "any")
