"""``keyholder keys``: a query's key in the files of Concrete's own clients, and back."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from concrete.compiler import Keyset, KeysetCache, ProgramInfo
from fake_service import FakeService, serve
from typer.testing import CliRunner

from cloister_keyholder.__main__ import app
from cloister_keyholder.errors import KeyUnusable
from cloister_keyholder.package.content import open_package
from cloister_keyholder.settings import Settings


@pytest.fixture
def url(digits_service: FakeService) -> Iterator[str]:
    with serve(digits_service) as address:
        yield address


@pytest.fixture
def run(url: str) -> Any:
    settings = Settings(url=url, model="digits", retry_seconds=5)

    def run_(*arguments: object) -> None:
        done = CliRunner().invoke(app, [str(one) for one in arguments], obj=settings)
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output

    return run_


@pytest.fixture
def encrypted(run: Any, tmp_path: Path, digits_data: Any) -> Path:
    np.savetxt(tmp_path / "rows.csv", digits_data[0][:1], delimiter=",", fmt="%d")
    names = ",".join(f"pixel_{at // 8}_{at % 8}" for at in range(64))
    rows = (tmp_path / "rows.csv").read_text()
    (tmp_path / "rows.csv").write_text(f"{names}\n{rows}")
    run(
        *("encrypt", tmp_path / "rows.csv", "--payload", tmp_path / "sent.bin"),
        *("--key", tmp_path / "key.json"),
    )
    return tmp_path


def test_a_key_goes_to_concretes_client(
    run: Any, encrypted: Path, digits_service: FakeService
) -> None:
    run("keys", "export", encrypted / "keyset", "--key", encrypted / "key.json")
    assert stat.S_IMODE((encrypted / "keyset").stat().st_mode) == 0o600
    result = digits_service.run((encrypted / "sent.bin").read_bytes())
    stock = open_package(digits_service.client_zip, "concrete").circuit
    native = open_package(digits_service.client_zip, "native").circuit
    exported = (encrypted / "keyset").read_bytes()
    found = stock.read_key(exported).decrypt(result)
    np.testing.assert_array_equal(found, native.read_key(exported).decrypt(result))
    assert int(found.argmax()) == 0


@pytest.mark.parametrize("form", ["keyset", "cache"])
def test_a_key_comes_back_as_it_went(run: Any, encrypted: Path, form: str) -> None:
    run("keys", "export", encrypted / "out", "--key", encrypted / "key.json", "--form", form)
    run("keys", "import", encrypted / "out", "--key", encrypted / "again.json")
    first, again = (
        json.loads((encrypted / name).read_text()) for name in ("key.json", "again.json")
    )
    assert first == again
    assert stat.S_IMODE((encrypted / "again.json").stat().st_mode) == 0o600


def test_a_key_of_concretes_cache_is_taken(
    run: Any, tmp_path: Path, digits_service: FakeService
) -> None:
    circuit = open_package(digits_service.client_zip, "concrete").circuit
    info = ProgramInfo.deserialize(circuit.specs.program_info())
    made = Keyset(info, KeysetCache(str(tmp_path / "cache")), 0, 0, 0, 0, None)
    (cached,) = (tmp_path / "cache").glob("*/secretKey_*")
    run("keys", "import", cached, "--key", tmp_path / "key.json")
    run("keys", "export", tmp_path / "keyset", "--key", tmp_path / "key.json")
    assert (tmp_path / "keyset").read_bytes() == made.serialize()
    run(
        *("keys", "export", tmp_path / "secretKey", "--key", tmp_path / "key.json"),
        *("--form", "cache"),
    )
    assert (tmp_path / "secretKey").read_bytes() == cached.read_bytes()


@pytest.mark.parametrize("content", [b"", b"not a key", bytes(10_000), bytes(2 << 20)])
def test_what_is_no_key_is_not_taken(run: Any, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(KeyUnusable, match="is no key of version 1 of digits"):
        run("keys", "import", tmp_path / "file", "--key", tmp_path / "key.json")
    assert not (tmp_path / "key.json").exists()


def test_no_file_is_written_over(run: Any, encrypted: Path) -> None:
    run("keys", "export", encrypted / "keyset", "--key", encrypted / "key.json")
    before = (encrypted / "keyset").read_bytes()
    with pytest.raises(KeyUnusable, match="exists and is not overwritten"):
        run("keys", "export", encrypted / "keyset", "--key", encrypted / "key.json")
    with pytest.raises(KeyUnusable, match="exists and is not overwritten"):
        run("keys", "import", encrypted / "keyset", "--key", encrypted / "key.json")
    assert (encrypted / "keyset").read_bytes() == before


def test_a_file_that_is_missing_is_told(run: Any, tmp_path: Path) -> None:
    with pytest.raises(KeyUnusable, match="cannot be read: No such file"):
        run("keys", "import", tmp_path / "missing", "--key", tmp_path / "key.json")
