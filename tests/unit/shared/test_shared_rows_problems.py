"""What does not fit is told by line or row and by column, and never with a value."""

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from cloister_shared.errors import CloisterError
from cloister_shared.preprocessing import OutOfBounds
from cloister_shared.rows.checking import Columns, InvalidRows, Reading, Rows
from cloister_shared.rows.files import kind_by_name, read_file
from cloister_shared.schema import Category, DatasetSchema, Feature, Target

DATA = DatasetSchema(
    dataset="three",
    features=tuple(Feature(name=name, low=0, high=10) for name in ("a", "b", "c")),
    classes=("no", "yes"),
)
VALUE = "31337"
"""Is within values and labels of these tests, and must be in no message."""


def read_rows(
    path: Path,
    data: DatasetSchema,
    out_of_bounds: OutOfBounds,
    columns: Columns | None = None,
) -> Rows:
    kind = kind_by_name(path.name)
    assert kind
    return read_file(path, kind, Reading(data, out_of_bounds, columns or Columns()))


def problems(
    path: Path, columns: Columns | None = None, out_of_bounds: OutOfBounds = "refuse"
) -> tuple[str, ...]:
    with pytest.raises(InvalidRows) as refused:
        read_rows(path, DATA, out_of_bounds, columns)
    assert refused.value.problems[0] in str(refused.value)
    for text in (*refused.value.problems, str(refused.value).replace(str(path), "")):
        assert VALUE not in text
    return refused.value.problems


def csv_problems(folder: Path, content: str | bytes, **options: Any) -> tuple[str, ...]:
    path = folder / "rows.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return problems(path, **options)


def parquet(folder: Path, **columns: Any) -> Path:
    path = folder / "rows.parquet"
    table = {"a": [1, 4], "b": [2, 5], "c": [3, 6], "label": ["no", "yes"]} | columns
    pa_parquet.write_table(pa.table(table), path)
    return path


BOUNDS = "it must be a number in [0.0, 10.0]"
FOREIGN = (
    "the number has a decimal comma or separators of thousands (write decimals with a point, and "
    f"no thousands); {BOUNDS}"
)


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("", f"it is empty; {BOUNDS}"),
        ("  ", f"it is empty; {BOUNDS}"),
        ('""', f"it is empty; {BOUNDS}"),
        *(
            (cell, f"the value is missing; {BOUNDS}")
            for cell in ("NaN", "nan", "NA", "n/a", "#N/A", "NULL", "None", "-", ".", "?", "\u2013")
        ),
        *((cell, f"the value is not finite; {BOUNDS}") for cell in ("inf", "-Infinity")),
        *(
            (f'"{cell}"', FOREIGN)
            for cell in ("1,31337", "-0,31337", "31,337.5", "31.337,5", "31 337", "31'337", "3,1e2")
        ),
        *((cell, FOREIGN) for cell in ("31\u00a0337", "31\u202f337", "31\u2019337", "3.133.7")),
        *(
            (cell, f"it is not a number; {BOUNDS}")
            for cell in (
                "x31337",
                "0x31337",
                "31337_0",
                "true",
                "31337 mg",
                "<31337",
                "1e",
                "\u0661",
            )
        ),
        ("31337", "the value is outside its declared bounds [0.0, 10.0]"),
        ("-31337e-9", "the value is outside its declared bounds [0.0, 10.0]"),
        ("1e31337", f"the value is not finite, or no number; {BOUNDS}"),
    ],
)
def test_a_cell_that_is_no_value_is_named_by_line_and_column(
    cell: str, told: str, tmp_path: Path
) -> None:
    content = f"a,c,b,label\n1,2,3,no\n\n4,{cell},6,yes\n7,8,9,no\n"
    assert csv_problems(tmp_path, content) == (f"line 4, column 'c': {told}",)


def test_a_decimal_comma_in_a_file_with_semicolons_is_told(tmp_path: Path) -> None:
    found = csv_problems(tmp_path, "a;b;c;label\r\n1,31337;2;3;no\r\n4;5;6,31337;yes\r\n")
    assert found == (f"line 2, column 'a': {FOREIGN}", f"line 3, column 'c': {FOREIGN}")


@pytest.mark.parametrize("label", ["31337", "Yes", "noo", "1.0", '"no\n31337"'])
def test_a_label_that_is_no_class_is_named_by_line(label: str, tmp_path: Path) -> None:
    found = csv_problems(tmp_path, f"label,a,b,c\nno,1,2,3\n{label},4,5,6\n")
    assert found == ("line 3: the label is not a class; the classes are no, yes",)


def test_a_label_that_is_missing_or_not_utf8_is_named_by_line(tmp_path: Path) -> None:
    found = csv_problems(tmp_path, b"label,a,b,c\nno,1,2,3\n,4,5,6\n \xff31337,4,5,6\n")
    assert found == (
        "line 3: the label is missing; the classes are no, yes",
        "line 4: the label is not a class; the classes are no, yes",
    )


def test_a_cell_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    found = csv_problems(tmp_path, b"a,b,c,label\n1,2,3,no\n4,\xb531337,6,yes\n")
    assert found == (f"line 3, column 'b': it is not a number; {BOUNDS}",)


@pytest.mark.parametrize(("line", "cells"), [("4,31337,5,6,yes", 5), ("4,yes", 2), ("31337", 1)])
def test_a_line_of_another_length_is_named(line: str, cells: int, tmp_path: Path) -> None:
    assert csv_problems(tmp_path, f"a,b,c,label\n1,2,3,no\n{line}\n7,8,9,yes\n") == (
        f"line 3: it has {cells} cells, and the line of names has 4; a cell that contains the "
        "separator must be in quotes",
    )


def test_quotes_that_do_not_end_are_told(tmp_path: Path) -> None:
    content = 'a,b,c,label\n1,2,3,no\n4,"5,6,yes\n7,8,9,no\n31337,1,1,no\n'
    (found,) = csv_problems(tmp_path, content)
    assert found.startswith("line 2: this line, or the next, has a quote that does not end")


def test_a_cell_longer_than_python_takes_is_told(tmp_path: Path) -> None:
    note = "x" * (csv.field_size_limit() + 1)
    content = f"a,b,c,label,note\n1,2,3,no,\n4,5,6,yes,{note}\n7,8,9,no,\n77,1,1,no,\n"
    (found,) = csv_problems(tmp_path, content, columns=Columns(ignored=frozenset({"note"})))
    assert "or a cell of more than 131072 characters" in found


def test_lines_are_counted_as_editors_do_after_cells_of_several_lines(tmp_path: Path) -> None:
    content = 'a,note,b,c,label\n1,"one\ntwo\r\nthree",2,3,no\n\n31337,x,2,3,yes\n'
    found = csv_problems(tmp_path, content, columns=Columns(ignored=frozenset({"note"})))
    assert found == ("line 6, column 'a': the value is outside its declared bounds [0.0, 10.0]",)


MISSING = "names must be equal in every letter"


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("a,b,label", [rf"the columns 'c' are missing: .*{MISSING}"]),
        ("A,b,C,label", [r"'a', 'c' are missing", r"'A', 'C' are neither features nor the label"]),
        ("a,b,c,y", [r"column of labels 'label' is missing: set CLOISTER_LABEL_COLUMN", "'y'"]),
        ("a,b,c,label,id", [r"'id' are neither .*: remove them, .* CLOISTER_IGNORED_COLUMNS"]),
        ("a,b,c,label,", [r"'' are neither features"]),
        ("a,b,c,label,x,x", [r"'x', 'x' are neither"]),
        ("a,b,b,c,label,label", [r"the columns 'b', 'label' are there more than once"]),
        ("a,31337,b,c,-31337.5,label", ["number 2, number 5 are neither"]),
        ("31337,2,3,yes", ["no column has the name of a feature of three: .* 'a', 'b', 'c' and"]),
        ("a|b|c|label", ["separated by commas or semicolons"]),
        ('"31337', ["no column has the name"]),
    ],
)
def test_columns_that_do_not_fit_are_named(header: str, told: list[str], tmp_path: Path) -> None:
    found = csv_problems(tmp_path, f"{header}\n1,2,3,no\n")
    assert len(found) == len(told)
    for problem, pattern in zip(found, told, strict=True):
        assert re.search(pattern, problem), problem


def test_many_wrong_columns_are_not_all_listed(tmp_path: Path) -> None:
    header = ",".join(f"x{i}" for i in range(30))
    (found,) = csv_problems(tmp_path, f"a,b,c,label,{header}\n")
    assert "'x9' and 20 more" in found


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "it is empty"),
        (b"\xef\xbb\xbf", "it is empty"),
        (b"\r\n\r\n", "it is empty"),
        (b"a,b,c,label", "it holds 0 rows; at least two are needed"),
        (b"a,b,c,label\r\n\r\n", "it holds 0 rows; at least two are needed"),
        (b"a,b,c,label\n1,2,3,no\n", "it holds 1 rows; at least two are needed"),
        ("a,b,c,label\n1,2,3,no\n".encode("utf-16"), "not text in UTF-8"),
        (b"PK\x03\x04 a workbook", "not text in UTF-8"),
        (b"\x1f\x8b compressed", "not compressed"),
        (b"\xff,a,b,c,label\n1,2,3,no\n", "names of its columns are not UTF-8"),
    ],
)
def test_a_file_without_rows_or_text_is_told(content: bytes, told: str, tmp_path: Path) -> None:
    (found,) = csv_problems(tmp_path, content)
    assert told in found


def test_settings_that_contradict_the_schema_are_told(tmp_path: Path) -> None:
    path = parquet(tmp_path)
    with pytest.raises(CloisterError, match=r"CLOISTER_LABEL_COLUMN is 'b', which is a feature"):
        read_rows(path, DATA, "refuse", Columns(label="b"))
    ignored = Columns(ignored=frozenset({"label", "b", "x"}))
    with pytest.raises(CloisterError, match=r"CLOISTER_IGNORED_COLUMNS .* needed: 'b', 'label'"):
        read_rows(path, DATA, "refuse", ignored)


def test_all_problems_are_listed_in_the_order_of_the_lines(tmp_path: Path) -> None:
    content = "a,b,c,label\n1,,3,no\n1,2\n1,x,31337,31337\nx,2,3,no\n"
    found = csv_problems(tmp_path, content)
    assert [problem.split(":")[0] for problem in found] == [
        "line 2, column 'b'",
        "line 3",
        "line 4, column 'b'",
        "line 4, column 'c'",
        "line 4",
        "line 5, column 'a'",
    ]


def test_no_more_than_20_are_looked_for_and_the_first_is_the_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b,c,label\n" + "x,1,1,no\n" * 30_000)
    with pytest.raises(InvalidRows) as refused:
        read_rows(path, DATA, "refuse")
    assert [problem.split(",")[0] for problem in refused.value.problems] == [
        f"line {line}" for line in range(2, 22)
    ]
    assert refused.value.more
    assert str(refused.value) == (
        f"{path}: line 2, column 'a': it is not a number; {BOUNDS} (and 19 or more other problems)"
    )


def test_a_problem_at_the_end_of_a_long_file_has_its_line(tmp_path: Path) -> None:
    found = csv_problems(tmp_path, "a,b,c,label\n" + "1,1,1,no\n" * 200_000 + "1,1,31337,no\n")
    bounds = "the value is outside its declared bounds [0.0, 10.0]"
    assert found == (f"line 200002, column 'c': {bounds}",)
    path = tmp_path / "shard.npz"
    values = np.ones((200_001, 3))
    values[-1, 2] = 31337
    np.savez(path, X=values, y=["no"] * 200_001)
    assert problems(path) == (f"row 200000 (counted from 0), column 'c': {bounds}",)
    table = dict(zip("abc", values.T, strict=True)) | {"label": ["no"] * 200_001}
    assert problems(parquet(tmp_path, **table)) == (
        f"row 200000 (counted from 0), column 'c': {bounds}",
    )


def test_what_is_clipped_is_no_problem_and_what_is_missing_still_is(tmp_path: Path) -> None:
    content = "a,b,c,label\n1,31337,3,no\n1,2,,no\n"
    found = csv_problems(tmp_path, content, out_of_bounds="clip")
    assert found == (f"line 3, column 'c': it is empty; {BOUNDS}",)
    path = tmp_path / "rows.csv"
    path.write_text("a,b,c,label\n1,31337,3,no\n1,2,-1,no\n")
    rows = read_rows(path, DATA, "clip")
    np.testing.assert_array_equal(rows.features, [[0.1, 1, 0.3], [0.1, 0.2, 0]])


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"a": [1, None]}, "row 1 (counted from 0), column 'a': the value is missing"),
        ({"a": pa.nulls(2)}, "row 0 (counted from 0), column 'a': the value is missing"),
        ({"b": [1.0, float("inf")]}, "row 1 (counted from 0), column 'b': the value is not finite"),
        ({"c": [31337, 1]}, "row 0 (counted from 0), column 'c': the value is outside"),
        ({"c": [1, 31337 << 47]}, "row 1 (counted from 0), column 'c': the value is outside"),
        ({"label": ["no", "31337"]}, "row 1 (counted from 0): the label is not a class"),
        ({"label": [None, "no"]}, "row 0 (counted from 0): the label is missing"),
        ({"label": [float("nan"), 1]}, "row 0 (counted from 0): the label is not a class"),
        ({"label": ["no", None]}, "row 1 (counted from 0): the label is missing"),
        ({"a": ["31337", "1"]}, "the column 'a' holds string, not numbers"),
        ({"a": [[31337.0], [1.0]]}, "the column 'a' holds list<"),
        ({"a": [{"x": 31337}, {"x": 1}]}, "the column 'a' holds struct<"),
        ({"b": pa.array([31337, 1], pa.timestamp("s"))}, "the column 'b' holds timestamp["),
        ({"label": [["no"], ["yes"]]}, "the column of labels 'label' holds list<"),
        ({"label": [b"no", b"yes"]}, "the column of labels 'label' holds binary"),
        ({"id": [31337, 1]}, "the columns 'id' are neither features nor the label"),
    ],
)
def test_a_parquet_file_that_does_not_fit_is_told(
    columns: dict[str, Any], told: str, tmp_path: Path
) -> None:
    assert problems(parquet(tmp_path, **columns))[0].startswith(told)


MIXED = DatasetSchema(
    dataset="mixed",
    task="regression",
    features=(
        Feature(name="age", low=0, high=100, missing=50),
        Category(name="sex", categories=("f", "m")),
        Category(name="ward", categories=tuple(range(12)), unknown="ignore"),
    ),
    target=Target(low=0, high=1),
    label="score",
)
SEX = "it must be one of f, m"


def test_categories_and_targets_that_do_not_fit_are_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(
        "age,sex,ward,score\n"
        "x31337,f,1,0\n"
        "31337,f,1,0\n"
        ",31337,1,0\n"
        "n/a,,,0\n"
        "1,f,1,31337\n"
        "1,f,1,\n"
        "1,f,1,0x31337\n"
        "1,F,31337,1\n"
    )
    target = "it must be in [0.0, 1.0]"
    expected = (
        "line 2, column 'age': it is not a number; it must be a number in [0.0, 100.0]",
        "line 3, column 'age': the value is outside its declared bounds [0.0, 100.0]",
        f"line 4, column 'sex': the value is not among its categories; {SEX}",
        f"line 5, column 'sex': the value is missing; {SEX}",
        "line 5, column 'ward': the value is missing; it must be one of 0, 1, 2, 3, 4, 5, 6, 7, 8, "
        "9 and 2 more",
        f"line 6: the target is outside its bounds; {target}",
        f"line 7: the target is missing; {target}",
        f"line 8: the target is not a number; {target}",
        f"line 9, column 'sex': the value is not among its categories; {SEX}",
    )
    policies: tuple[OutOfBounds, ...] = ("refuse", "clip")
    for out_of_bounds in policies:
        with pytest.raises(InvalidRows) as refused:
            read_rows(path, MIXED, out_of_bounds)
        assert refused.value.problems == tuple(
            problem
            for problem in expected
            if out_of_bounds == "refuse" or "declared bounds" not in problem
        )


def test_a_parquet_column_of_dates_is_no_category(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    dates = pa.array([31337, 1], pa.timestamp("s"))
    table = {"age": [1, 2], "sex": dates, "ward": [1, 2], "score": [0, 1]}
    pa_parquet.write_table(pa.table(table), path)
    with pytest.raises(InvalidRows) as refused:
        read_rows(path, MIXED, "refuse")
    (problem,) = refused.value.problems
    assert problem.startswith("the column 'sex' holds timestamp[ms]; store its categories as text")


def test_parquet_columns_that_are_missing_or_there_twice_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    column = pa.array([1, 2])
    pa_parquet.write_table(pa.table([column] * 4, names=["a", "b", "a", "label"]), path)
    missing, twice = problems(path)
    assert "the columns 'c' are missing" in missing
    assert "the columns 'a' are there more than once" in twice


@pytest.mark.parametrize("content", [b"", b"31337", b"PAR1 31337 PAR1", b"PAR1" + bytes(100)])
def test_what_is_no_parquet_is_told(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(content)
    assert problems(path) == (
        "it cannot be read as Parquet: it is damaged, encrypted or of another kind",
    )


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet", "shard.npz"])
def test_a_file_that_is_not_to_be_read_is_told(name: str, tmp_path: Path) -> None:
    # A folder of that name is refused to every user, root included.
    (tmp_path / name).mkdir()
    with pytest.raises(CloisterError, match=rf"{name}.*(Is a directory|is damaged)"):
        read_rows(tmp_path / name, DATA, "refuse")


def test_problems_of_npz_have_row_and_column(tmp_path: Path) -> None:
    path = tmp_path / "shard.npz"
    np.savez(path, X=np.array([[1, 31337, 1], [1, 1, np.nan]]), y=["31337", "no"])
    where = "row {} (counted from 0)"
    assert problems(path) == (
        f"{where.format(0)}, column 'b': the value is outside its declared bounds [0.0, 10.0]",
        f"{where.format(0)}: the label is not a class; the classes are no, yes",
        f"{where.format(1)}, column 'c': the value is missing; {BOUNDS}",
    )
