"""CSV files and held-out sets."""

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloister_keyholder import InvalidSamples
from cloister_keyholder.evaluating.samples import read_csv, read_held_out
from cloister_shared.datasets import schema
from cloister_shared.errors import CloisterError
from cloister_shared.preprocessing import to_inputs
from cloister_shared.schema import Category, DatasetSchema, Feature


def three(*names: str) -> DatasetSchema:
    return DatasetSchema(
        dataset="three",
        features=tuple(Feature(name=name, low=0, high=10) for name in names or ("a", "b", "c")),
        classes=("no", "yes"),
    )


def read(path: Path, text: str | bytes, description: DatasetSchema | None = None) -> list[object]:
    file = path / "rows.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    found: list[object] = read_csv(file, description or three()).tolist()
    return found


@pytest.mark.parametrize(
    "text",
    [
        "1,2,3\n4,5,6\n",
        "1,2,3\n4,5,6",
        "a,b,c\n1,2,3\n4,5,6\n",
        "c,a,b\n3,1,2\n6,4,5\n",
        "\ufeffa,b,c\r\n1,2,3\r\n4,5,6\r\n",
        '"a", b,c \n" 1", 2 ,3.0\n\n+4,5e0,.6e1\n\n',
    ],
)
def test_rows_are_read_in_the_schemas_order(text: str, tmp_path: Path) -> None:
    assert read(tmp_path, text) == [[1, 2, 3], [4, 5, 6]]


names = st.lists(
    st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8),
    min_size=1,
    max_size=6,
    unique=True,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=names, data=st.data(), header=st.booleans())
def test_what_csv_writes_is_read_back(
    names: list[str], data: st.DataObject, header: bool, tmp_path: Path
) -> None:
    numbers = st.floats(allow_nan=False, allow_infinity=False)
    row = st.lists(numbers, min_size=len(names), max_size=len(names))
    rows = data.draw(st.lists(row, min_size=1, max_size=5))
    order = data.draw(st.permutations(range(len(names)))) if header else range(len(names))
    path = tmp_path / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        if header:
            writer.writerow([names[i] for i in order])
        writer.writerows([[values[i] for i in order] for values in rows])
    first = [repr(value) for value in rows[0]]
    if not header and set(first) == set(names):
        return
    assert read_csv(path, three(*names)).tolist() == rows


def test_numbers_that_are_the_features_names_are_a_header(tmp_path: Path) -> None:
    description = three("0", "1", "2")
    assert read(tmp_path, "2,0,1\n7,8,9\n", description) == [[8, 9, 7]]
    assert read(tmp_path, "2,0,5\n7,8,9\n", description) == [[2, 0, 5], [7, 8, 9]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        ("\n\n", "no rows"),
        ("a,b,c\n", "no rows"),
        ("a,b,c,d\n1,2,3,4\n", "no features of the model: 'd'"),
        ("a,b,x\n1,2,3\n", "no features of the model: 'x'"),
        ("a,b\n1,2\n", "lacks the columns: 'c'"),
        ("a,b,c,a\n1,2,3,1\n", "twice: 'a'"),
        ("x,y,z\n1,2,3\n", "no features of the model: 'x', 'y', 'z'"),
        ("1,2\n", r"row 0 \(line 1\) has 2 values; 3"),
        ("a,b,c\n1,2,3\n1,2,3,4\n", r"row 1 \(line 3\) has 4 values"),
        ("a,b,c\n1,2,3\n\n1,,3\n", r"row 1 \(line 4\), column 'b': it is empty"),
        ("c,b,a\n1,2,oops\n", r"row 0 \(line 2\), column 'a'"),
        ("1,2,oops\n", r"row 0 \(line 1\), column 'c'"),
        ("1,2,3\n1,nan,3\n", "column 'b'"),
        ("1,2,3\n1,inf,3\n", "column 'b'"),
        ("1,2,3\n1,1_0,3\n", "column 'b'"),
        ("1,2,3\n1,0x1,3\n", "column 'b'"),
        ("1;2;3\n", "no features|has 1 values"),
        ('1,2,"3\n', "cannot be read as CSV"),
    ],
)
def test_a_malformed_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidSamples, match=message) as caught:
        read(tmp_path, text)
    assert "oops" not in str(caught.value)


MIXED = DatasetSchema(
    dataset="mixed",
    features=(
        Feature(name="age", low=0, high=100, missing=50),
        Category(name="sex", categories=("f, x", "m")),
        Category(name="ward", categories=(1, 2), missing=2, unknown="ignore"),
    ),
    classes=("no", "yes"),
)


def test_labels_and_what_is_missing_are_read_as_the_schema_says(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text('ward,age,sex\n1.0,25,"f, x"\n,, m\n9,NA,m\n')
    rows = read_csv(tmp_path / "rows.csv", MIXED)
    np.testing.assert_array_equal(
        to_inputs(rows, MIXED),
        np.array([[0.25, 1, 0, 1, 0], [0.5, 0, 1, 0, 1], [0.5, 0, 1, 0, 0]]),
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "1,,2",
            r"row 1 \(line 3\), column 'sex': the value is missing; it must be one of f, x, m",
        ),
        (
            "1,F,2",
            r"row 1 \(line 3\), column 'sex': the value is not among its categories; it must",
        ),
        ("x,m,2", r"row 1 \(line 3\), column 'age': it is not a number; it must be a number in"),
        ("inf,m,2", r"row 1 \(line 3\), column 'age': the value is not finite"),
    ],
)
def test_a_value_that_the_schema_has_no_policy_for_is_refused(
    line: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text(f"age,sex,ward\n1,m,1\n{line}\n")
    with pytest.raises(InvalidSamples, match=message):
        read_csv(tmp_path / "rows.csv", MIXED)


def test_a_file_that_is_no_text_or_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSamples, match="CSV"):
        read(tmp_path, b"\xff\xfe\x00")
    with pytest.raises(InvalidSamples, match="CSV"):
        read_csv(tmp_path / "missing.csv", three())


def test_many_wrong_columns_are_not_all_listed(tmp_path: Path) -> None:
    with pytest.raises(InvalidSamples, match="and 20 more"):
        read(tmp_path, ",".join(f"x{i}" for i in range(30)) + "\n")


def write_held_out(folder: Path, description: DatasetSchema, **arrays: object) -> None:
    (folder / "schema.json").write_text(description.model_dump_json())
    np.savez(folder / "held_out.npz", **arrays)  # type: ignore[arg-type]  # its stub knows no keywords


@pytest.mark.parametrize("y", [["yes", "no"], np.array([b"yes", b"no"]).astype(str)])
def test_held_out_samples_are_read(y: object, tmp_path: Path) -> None:
    write_held_out(tmp_path, three(), X=[[1, 2, 3], [4, 5, 6]], y=y)
    found = read_held_out(tmp_path)
    assert found.rows.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert found.answers.tolist() == [1, 0]
    found.check_fits(three())


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": [[1, 2]], "y": ["no"]}, r"\(n, 3\)"),
        ({"X": [[1, 2, 3]], "y": ["no", "no"]}, r"y has shape \(2,\) for 1 rows"),
        ({"X": np.empty((0, 3)), "y": []}, "for 0 rows"),
        ({"X": [[1, 2, 3]]}, "arrays X and y"),
        ({"X": [["a", "b", "c"]], "y": ["no"]}, "arrays X and y"),
        ({"X": np.array([[None] * 3]), "y": ["no"]}, "arrays X and y"),
    ],
)
def test_malformed_held_out_samples_are_refused(
    arrays: dict[str, object], message: str, tmp_path: Path
) -> None:
    write_held_out(tmp_path, three(), **arrays)
    with pytest.raises(InvalidSamples, match=message):
        read_held_out(tmp_path)


def test_a_label_that_is_no_class_is_refused(tmp_path: Path) -> None:
    write_held_out(tmp_path, three(), X=[[1, 2, 3]], y=["perhaps"])
    with pytest.raises(CloisterError, match="row 0"):
        read_held_out(tmp_path)


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CloisterError, match=re.escape("schema.json is missing")):
        read_held_out(tmp_path)
    (tmp_path / "schema.json").write_text(three().model_dump_json())
    with pytest.raises(InvalidSamples, match="CLOISTER_HELD_OUT_DIR"):
        read_held_out(tmp_path)
    array = io.BytesIO()
    np.save(array, np.zeros((1, 3)))
    for content in (b"", b"PK\x03\x04 no archive", b"\x93NUMPY", array.getvalue()):
        (tmp_path / "held_out.npz").write_bytes(content)
        with pytest.raises(InvalidSamples, match="arrays X and y"):
            read_held_out(tmp_path)


def test_samples_of_another_model_are_refused(tmp_path: Path) -> None:
    write_held_out(tmp_path, three(), X=[[1, 2, 3]], y=["no"])
    with pytest.raises(InvalidSamples, match=r"of three with 3 features.*on digits with 64"):
        read_held_out(tmp_path).check_fits(schema("digits"))
