"""Rows of a site in every format: what is read, and that the formats are equal."""

import csv
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloister_shared.errors import CloisterError
from cloister_shared.rows import csv_rows
from cloister_shared.rows.checking import Columns, Reading, Rows
from cloister_shared.rows.files import kind_by_content, kind_by_name, read_file
from cloister_shared.schema import Category, DatasetSchema, Feature, Label, Target

Data = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]

NO_COLUMNS = Columns()


def three(classes: tuple[Label, ...] = ("no", "yes"), *names: str) -> DatasetSchema:
    return DatasetSchema(
        dataset="three",
        features=tuple(Feature(name=name, low=0, high=10) for name in names or ("a", "b", "c")),
        classes=classes,
    )


ROWS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
"""What most files in these tests hold; the labels are no, yes."""


def read(path: Path, data: DatasetSchema | None = None, columns: Columns = NO_COLUMNS) -> Rows:
    kind = kind_by_name(path.name)
    assert kind
    return read_file(path, kind, Reading(data or three(), columns=columns))


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "rows.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def parquet(folder: Path, **columns: Any) -> Path:
    path = folder / "rows.parquet"
    pa_parquet.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize(
    "content",
    [
        "a,b,c,label\n1,2,3,no\n4,5,6,yes\n",
        "a,b,c,label\n1,2,3,no\n4,5,6,yes",
        "label,c,a,b\nno,3,1,2\nyes,6,4,5\n",
        "\ufeffa,b,c,label\r\n1,2,3,no\r\n4,5,6,yes\r\n",
        "a,b,c,label\r1,2,3,no\r4,5,6,yes",
        '"a", b,c ,"label"\n" 1", 2 ,3.0, no\n\n+4,5e0,.6e1,"yes"\n\n',
        "a;b;c;label\n1;2;3;no\n4;5;6;yes\n",
        " a; b; c; label\n 1; 2; 3; no\n4 ; 5.0; 6.; yes\n",
        "a\tb\tc\tlabel\n1\t2\t3\tno\n4\t5\t6\tyes\n",
        "\n\r\na,b,c,label\n\n1,2,3,no\n4,5,6,yes\n",
    ],
)
def test_a_csv_file_is_read_however_it_is_written(content: str, tmp_path: Path) -> None:
    found = read(written(tmp_path, content))
    np.testing.assert_array_equal(found.features, np.array(ROWS) / 10)
    assert found.answers.tolist() == [0, 1]
    assert found.features.dtype == np.float64


def test_the_label_has_the_name_that_the_site_says(tmp_path: Path) -> None:
    columns = Columns(label="diagnosis")
    path = written(tmp_path, "a,b,c,diagnosis\n1,2,3,no\n4,5,6,yes\n")
    assert read(path, columns=columns).answers.tolist() == [0, 1]
    path = parquet(tmp_path, a=[1, 4], b=[2, 5], c=[3, 6], diagnosis=["no", "yes"])
    assert read(path, columns=columns).answers.tolist() == [0, 1]


@pytest.mark.parametrize("noted", ["x", '"two\nlines, and ""quoted"""', "\udcff"])
def test_ignored_columns_are_not_read(noted: str, tmp_path: Path) -> None:
    content = f"id,a,b,c,label,note\n77,1,2,3,no,{noted}\n78,4,5,6,yes,{noted}\n"
    columns = Columns(ignored=frozenset({"id", "note", "absent"}))
    path = written(tmp_path, content.encode(errors="surrogateescape"))
    np.testing.assert_array_equal(read(path, columns=columns).features, np.array(ROWS) / 10)
    path = parquet(tmp_path, id=[[7], None], a=[1, 4], b=[2, 5], c=[3, 6], label=["no", "yes"])
    np.testing.assert_array_equal(read(path, columns=columns).features, np.array(ROWS) / 10)


def test_a_name_with_spaces_around_it_or_a_separator_in_it_is_found(tmp_path: Path) -> None:
    data = three((0, 1), " a", "b, c", "größe")
    path = written(tmp_path, ' a,"b, c",größe,label\n1,2,3,0\n4,5,6,1\n')
    np.testing.assert_array_equal(read(path, data).features, np.array(ROWS) / 10)
    path = written(tmp_path, " a;b, c;größe;label\n1;2;3;0\n4;5;6;1\n")
    np.testing.assert_array_equal(read(path, data).features, np.array(ROWS) / 10)


CLASSES: tuple[tuple[tuple[Label, ...], list[str]], ...] = (
    ((7, 8), ["7", " 7 ", "7.0", "7.", "8", "8.00"]),
    (("7", "8"), ["7", " 7 ", "7.0", "7.", "8", "8.00"]),
    ((0, 1), ["false", "False", "0", "0.0", "true", "1"]),
    (("true", "false"), ["True", "true", "TRUE", "true", "FALSE", "false"]),
    (("7.0", "7"), ["7.0", "7.0", "7.0", "7.0", "7", "7.00"]),
)


@pytest.mark.parametrize(("classes", "labels"), CLASSES)
def test_a_label_in_a_csv_file_is_its_class_however_it_is_written(
    classes: tuple[Label, ...], labels: list[str], tmp_path: Path
) -> None:
    lines = "".join(f"1,2,3,{label}\n" for label in labels)
    found = read(written(tmp_path, f"a,b,c,label\n{lines}"), three(classes))
    assert found.answers.tolist() == [0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("classes", "labels"),
    [
        ((7, 8), pa.array([7, 8])),
        ((7, 8), pa.array([7, 8], pa.uint8())),
        ((7, 8), pa.array([7.0, 8.0])),
        ((7, 8), pa.array([Decimal("7.00"), Decimal("8.00")])),
        ((7, 8), pa.array(["7", "8.0"])),
        ((0, 1), pa.array([False, True])),
        (("no", "yes"), pa.array(["no", "yes"], pa.large_string())),
        (("no", "yes"), pa.array(["no", "yes"]).dictionary_encode()),
        (("False", "True"), pa.array([False, True])),
    ],
)
def test_labels_in_a_parquet_file_can_be_of_many_types(
    classes: tuple[Label, ...], labels: Any, tmp_path: Path
) -> None:
    path = parquet(tmp_path, a=[1, 4], b=[2, 5], c=[3, 6], label=labels)
    assert read(path, three(classes)).answers.tolist() == [0, 1]


@pytest.mark.parametrize(
    "labels", [[7, 8], [7.0, 8.0], ["7", "8.0"], np.array([7, 8], dtype=np.uint8)]
)
def test_labels_in_an_npz_file_can_be_of_many_types(labels: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "shard.npz", X=np.array(ROWS, dtype=np.float32), y=labels)
    found = read(tmp_path / "shard.npz", three((7, 8)))
    assert found.answers.tolist() == [0, 1]
    np.testing.assert_array_equal(found.features, np.array(ROWS) / 10)


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1, 0]),
        pa.array([1, 0], pa.int8()),
        pa.array([1, 0], pa.uint64()),
        pa.array([1, 0], pa.float32()),
        pa.array(np.array([1, 0], dtype=np.float16)),
        pa.array([Decimal("1.0"), Decimal("0.0")]),
        pa.array([True, False]),
        pa.array([1.0, 0.0]).dictionary_encode(),
    ],
)
def test_numbers_in_a_parquet_file_can_be_of_many_types(values: Any, tmp_path: Path) -> None:
    path = parquet(tmp_path, a=values, b=[2, 5], c=[3, 6], label=["no", "yes"])
    np.testing.assert_array_equal(read(path).features, [[0.1, 0.2, 0.3], [0, 0.5, 0.6]])


def test_columns_with_points_in_their_names_are_found(tmp_path: Path) -> None:
    columns: dict[str, Any] = {"a": [1, 4], "a.b": [2, 5], "c": [3, 6], "label": ["no", "yes"]}
    path = parquet(tmp_path, **columns)
    data = three(("no", "yes"), "a", "a.b", "c")
    np.testing.assert_array_equal(read(path, data).features, np.array(ROWS) / 10)


names = st.lists(
    st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8),
    min_size=2,
    max_size=6,
    unique=True,
)
unit = st.floats(0, 1)
Write = Callable[[Path, list[str], list[list[float]], list[str]], Path]


def as_npz(folder: Path, header: list[str], rows: list[list[float]], labels: list[str]) -> Path:
    np.savez(folder / "shard.npz", X=rows, y=labels)
    return folder / "shard.npz"


def as_csv(delimiter: str) -> Write:
    def write(folder: Path, header: list[str], rows: list[list[float]], labels: list[str]) -> Path:
        path = folder / "rows.csv"
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, delimiter=delimiter)
            writer.writerow(header)
            writer.writerows([*row, label] for row, label in zip(rows, labels, strict=True))
        return path

    return write


def as_parquet(folder: Path, header: list[str], rows: list[list[float]], labels: list[str]) -> Path:
    values = np.array(rows)
    columns = dict(zip(header, values.T, strict=False)) | {header[-1]: labels}
    return parquet(folder, **{name: pa.array(column) for name, column in columns.items()})


@pytest.mark.parametrize(
    "write", [as_csv(","), as_csv(";"), as_csv("\t"), as_parquet], ids=[",", ";", "tab", "parquet"]
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=names, classes=names, data=st.data())
def test_every_format_gives_what_npz_gives(
    write: Write, names: list[str], classes: list[str], data: st.DataObject, tmp_path: Path
) -> None:
    *features, label = names
    description = DatasetSchema(
        dataset="drawn",
        features=tuple(Feature(name=name, low=0, high=1) for name in features),
        label=label,
        classes=tuple(classes),
    )
    row = st.lists(unit, min_size=len(features), max_size=len(features))
    rows = data.draw(st.lists(row, min_size=2, max_size=5))
    labels = data.draw(st.lists(st.sampled_from(classes), min_size=len(rows), max_size=len(rows)))
    expected = read(as_npz(tmp_path, names, rows, labels), description)
    order = data.draw(st.permutations(range(len(features))))
    shuffled = [features[i] for i in order], [[values[i] for i in order] for values in rows]
    path = write(tmp_path, [*shuffled[0], label], shuffled[1], labels)
    found = read(path, description)
    np.testing.assert_array_equal(found.features, expected.features)
    np.testing.assert_array_equal(found.answers, expected.answers)
    np.testing.assert_array_equal(found.features, np.array(rows))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary() | st.text(alphabet='ab,;"\n\r1 .+e-\ufeffé').map(str.encode))
def test_any_csv_file_is_read_or_refused(content: bytes, tmp_path: Path) -> None:
    path = written(tmp_path, b"a,b,c,label\n1,2,3,no\n4,5,6,yes\n" + content)
    try:
        found = read(path)
    except CloisterError:
        return
    assert len(found.answers) >= 2
    assert np.isfinite(found.features).all()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_parquet_file_is_read_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    path = parquet(tmp_path, a=[1, 4], b=[2, 5], c=[3, 6], label=["no", "yes"])
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        found = read(path)
    except CloisterError:
        return
    assert len(found.answers) >= 2


def test_a_file_of_many_blocks_keeps_its_order(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    count = 300_000
    values = generator.integers(0, 11, (count, 3))
    labels = generator.integers(0, 2, count)
    lines = [f"{a},{b},{c},{label}" for (a, b, c), label in zip(values, labels, strict=True)]
    path = written(tmp_path, "a,b,c,label\n" + "\n".join(lines))
    found = read(path, three((0, 1)))
    np.testing.assert_array_equal(found.features, values / 10)
    np.testing.assert_array_equal(found.answers, labels)
    # A number that pyarrow does not take, at the end: all is read by lines.
    lines[-1] = "+1,2,3,1"
    again = read(written(tmp_path, "a,b,c,label\n" + "\n".join(lines)), three((0, 1)))
    np.testing.assert_array_equal(again.features[:-1], found.features[:-1])
    np.testing.assert_array_equal(again.features[-1], [0.1, 0.2, 0.3])
    np.testing.assert_array_equal(again.answers[:-1], found.answers[:-1])


def test_no_line_of_a_cell_is_taken_for_a_row_wherever_the_file_is_cut(tmp_path: Path) -> None:
    line = 'no,1,2,3,"{}\nyes,9,9,9,x"\n'
    lines = [line.format("x" * (row % 40)) for row in range(120_000)]
    path = written(tmp_path, "label,a,b,c,note\n" + "".join(lines))
    found = read(path, columns=Columns(ignored=frozenset({"note"})))
    assert found.answers.tolist() == [0] * len(lines)


def test_no_line_of_an_unknown_label_is_taken_for_a_row_and_the_file_is_read_the_fast_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*arguments: object) -> None:
        raise AssertionError("read by lines, several times as slow")

    monkeypatch.setattr(csv_rows, "_read_with_lines", slow)
    data = DatasetSchema(
        dataset="notes",
        features=(
            Feature(name="a", low=0, high=10),
            Category(name="note", categories=("x", "y"), unknown="ignore"),
        ),
        classes=("no", "yes"),
    )
    line = 'no,1,"{}\nyes,9,x"\n'
    lines = [line.format("x" * (2 + row % 40)) for row in range(120_000)]
    found = read(written(tmp_path, "label,a,note\n" + "".join(lines)), data)
    assert found.answers.tolist() == [0] * len(lines)
    assert not found.features[:, 1:].any()


def test_a_well_formed_file_is_read_the_fast_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*arguments: object) -> None:
        raise AssertionError("read by lines, several times as slow")

    monkeypatch.setattr(csv_rows, "_read_with_lines", slow)
    note = "x" * 100 + "\n" + "y" * 100
    content = "\n\r\na;b;c;label;note\r\n" + f'1;2.5;3e0;no;"{note}"\r\n\r\n' * 10_000
    ignored = Columns(ignored=frozenset({"note"}))
    assert len(read(written(tmp_path, content), columns=ignored).answers) == 10_000
    with pytest.raises(AssertionError):
        read(written(tmp_path, content.replace("2.5", "2,5")), columns=ignored)


MIXED = DatasetSchema(
    dataset="mixed",
    features=(
        Feature(name="age", low=0, high=100, missing=50),
        Category(name="sex", categories=("f, x", 'm"y')),
        Category(name="ward", categories=(1, 2), missing=2, unknown="ignore"),
    ),
    target=Target(low=-10, high=10),
    task="regression",
    label="score",
)
MIXED_INPUTS = np.array([[0.25, 1, 0, 1, 0], [0.5, 0, 1, 0, 1], [1, 1, 0, 0, 0]])
MIXED_CSV = 'sex;score;ward;age\n"f, x";-1.5;1.0;25\n"m""y";2;;\n"f, x";10;9;100\n'


def test_categories_policies_and_targets_are_read_in_every_format(tmp_path: Path) -> None:
    paths = [written(tmp_path, MIXED_CSV)]
    ward, age = [1, None, 9], [25, None, 100]
    labels = ["f, x", 'm"y', "f, x"]
    scores = [-1.5, 2, 10]
    for kind in (pa.string(), pa.dictionary(pa.int8(), pa.string())):
        sex = pa.array(labels, pa.string()).cast(kind)
        paths.append(tmp_path / f"{len(paths)}.parquet")
        pa_parquet.write_table(
            pa.table({"score": scores, "ward": ward, "age": age, "sex": sex}), paths[-1]
        )
    paths.append(tmp_path / "rows.npz")
    cells = [["25", "f, x", "1"], ["", 'm"y', "NA"], ["100", "f, x", "9"]]
    np.savez(paths[-1], X=np.array(cells), y=scores)
    for path in paths:
        found = read(path, MIXED)
        np.testing.assert_array_equal(found.features, MIXED_INPUTS)
        np.testing.assert_array_equal(found.answers, scores)


def test_a_csv_file_is_read_without_pyarrow_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pyarrow", "pyarrow.csv"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("csv_arrow", "parquet_rows"):
        monkeypatch.delitem(sys.modules, f"cloister_shared.rows.{name}", raising=False)
    found = read(written(tmp_path, MIXED_CSV), MIXED)
    np.testing.assert_array_equal(found.features, MIXED_INPUTS)
    with pytest.raises(CloisterError, match=r"pyarrow is not installed here: install it, or write"):
        read(tmp_path / "rows.parquet", MIXED)


def test_encoded_rows_are_left_as_they_are(tmp_path: Path) -> None:
    path = written(tmp_path, MIXED_CSV)
    found = read_file(path, ".csv", Reading(MIXED, encoded=True))
    expected = np.array([[25, 0, 0], [np.nan, 1, np.nan], [100, 0, -1]])
    np.testing.assert_array_equal(found.features, expected)


@pytest.mark.parametrize("kind", ["csv", "parquet", "npz"])
def test_a_file_is_told_by_its_content(kind: str, tmp_path: Path) -> None:
    path = {
        "csv": lambda: written(tmp_path, "a,b,c,label\n1,2,3,no\n4,5,6,yes\n"),
        "parquet": lambda: parquet(tmp_path, a=[1, 4], b=[2, 5], c=[3, 6], label=["no", "yes"]),
        "npz": lambda: as_npz(tmp_path, [], ROWS, ["no", "yes"]),
    }[kind]()
    renamed = path.rename(tmp_path / "rows")
    found = read_file(renamed, kind_by_content(renamed), Reading(three()))
    np.testing.assert_array_equal(found.features, np.array(ROWS) / 10)
