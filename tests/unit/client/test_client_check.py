"""The command with which a site's administrator checks a folder before joining."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cloister_client.commands import command
from cloister_client.data.check import check_folder
from cloister_client.settings import Settings
from cloister_shared.errors import CloisterError
from cloister_shared.schema import DatasetSchema, Feature

DATA = DatasetSchema(
    dataset="three",
    features=tuple(Feature(name=name, low=0, high=10) for name in ("a", "b", "c")),
    classes=("no", "perhaps", "yes"),
)


def site(folder: Path, content: str, data: DatasetSchema = DATA) -> Path:
    (folder / "schema.json").write_text(data.model_dump_json())
    (folder / "rows.csv").write_text(content)
    return folder


def check(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cloister_client", *arguments],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_folder_that_fits_is_counted_on_standard_output_alone(tmp_path: Path) -> None:
    rows = "1,2,3,7,no\n" * 15 + "1,2,3,8,yes\n" * 5
    site(tmp_path, f"a,b,c,id,outcome\n{rows}")
    settings = {"CLOISTER_LABEL_COLUMN": "outcome", "CLOISTER_IGNORED_COLUMNS": '["id"]'}
    done = check("check", str(tmp_path), **settings)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"{tmp_path / 'rows.csv'} fits three: 20 rows, 3 features.",
        "  no: 15",
        "  perhaps: 0",
        "  yes: 5",
        "Of these, 18 rows are fitted, and models are measured on the other 2.",
        "Of the classes without a row this site teaches nothing: they keep what other sites teach.",
    ]
    assert check("check", CLOISTER_SHARD_DIR=str(tmp_path), **settings).stdout == done.stdout


def test_all_that_is_wrong_is_listed_and_the_code_is_1(tmp_path: Path) -> None:
    site(tmp_path, "a,b,c,label\n1,2,3,no\n31337,2,,maybe\n")
    done = check("check", str(tmp_path))
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"{tmp_path / 'rows.csv'} does not fit three:",
        "  line 3, column 'a': the value is outside its declared bounds [0.0, 10.0]",
        "  line 3, column 'c': it is empty; it must be a number in [0.0, 10.0]",
        "  line 3: the label is not a class; the classes are no, perhaps, yes",
    ]
    assert done.stderr.endswith("does not fit: all problems are listed above\n")
    assert "31337" not in done.stderr
    assert "Traceback" not in done.stderr


def run(folder: Path, *arguments: str) -> None:
    command(["check", str(folder), *arguments])(Settings())


def test_more_problems_than_are_listed_are_told(tmp_path: Path) -> None:
    site(tmp_path, "a,b,c,label\n" + "1,2,,no\n" * 30)
    with pytest.raises(CloisterError, match=r"the first 20 problems are listed above"):
        run(tmp_path)


def test_values_out_of_bounds_are_no_problem_where_the_training_clips(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site(tmp_path, "a,b,c,label\n31337,2,3,no\n1,2,3,yes\n")
    with pytest.raises(CloisterError, match="does not fit"):
        run(tmp_path)
    capsys.readouterr()
    run(tmp_path, "--out-of-bounds", "clip")
    assert "fits three: 2 rows" in capsys.readouterr().out


def test_a_site_with_one_of_two_classes_is_told_that_it_only_measures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = DATA.model_copy(update={"classes": ("no", "yes")})
    run(site(tmp_path, "a,b,c,label\n" + "1,2,3,no\n" * 3, two))
    assert "this site only measures" in capsys.readouterr().out
    run(site(tmp_path, "a,b,c,label\n1,2,3,no\n1,2,3,yes\n", two))
    assert "only measures" not in capsys.readouterr().out


def test_a_folder_without_rows_or_schema_is_told(tmp_path: Path) -> None:
    with pytest.raises(CloisterError, match=r"schema\.json is missing"):
        run(tmp_path)
    (tmp_path / "schema.json").write_text(DATA.model_dump_json())
    with pytest.raises(CloisterError, match="has no file of rows"):
        run(tmp_path)
    with pytest.raises(CloisterError, match="set CLOISTER_SHARD_DIR"):
        check_folder(Settings(), None, "refuse")


@pytest.mark.parametrize("arguments", [["chekc"], ["check", "a", "b"], ["--help"]])
def test_what_is_not_understood_is_answered_with_the_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command(arguments)
    assert ended.value.code == (0 if arguments == ["--help"] else 2)
    shown = capsys.readouterr()
    assert "usage: python -m cloister_client" in shown.out + shown.err
