"""What holds of the repository as a whole."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
SERVICES = sorted(path.parent.name for path in ROOT.glob("services/*/pyproject.toml"))
WITH_SETTINGS = [service for service in SERVICES if service != "cli"]


def package(service: str) -> Path:
    return ROOT / "services" / service / "src" / f"cloister_{service}"


def imported(folder: Path) -> set[str]:
    """Every module that code under this folder imports, inside functions too."""
    modules = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path} imports relatively"
                assert node.module is not None
                modules |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
    return modules


def cloister_packages(folder: Path) -> set[str]:
    return {m.split(".")[0] for m in imported(folder) if m.startswith("cloister")}


def test_there_are_services() -> None:
    assert {"dealer", "client", "server", "trainer", "compiler", "inference", "keyholder"} < set(
        SERVICES
    )


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_imports_what_is_shared_and_no_other_service(service: str) -> None:
    allowed = {f"cloister_{service}"} | ({"cloister_shared"} if service != "cli" else set())
    if service == "keyholder":
        allowed.add("cloister_lwe")
    assert cloister_packages(package(service)) <= allowed


def test_the_core_imports_nothing_of_ours() -> None:
    core = ROOT / "services" / "keyholder" / "lwe" / "src"
    assert cloister_packages(core) == {"cloister_lwe"}


def test_what_is_shared_imports_no_service() -> None:
    assert cloister_packages(ROOT / "shared" / "src") == {"cloister_shared"}


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_the_same_shape(service: str) -> None:
    folder = ROOT / "services" / service
    modules = ["__init__.py", "__main__.py"] + ["settings.py"] * (service in WITH_SETTINGS)
    for path in [
        folder / "pyproject.toml",
        folder / "README.md",
        *(package(service) / name for name in modules),
    ]:
        assert path.read_text().strip(), f"{path} is empty"
    # An editable installation of what is not pure Python leaves its metadata beside it.
    assert [path.name for path in (folder / "src").iterdir() if path.suffix != ".egg-info"] == [
        f"cloister_{service}"
    ]


@pytest.mark.parametrize("service", SERVICES)
def test_the_readme_names_every_module(service: str) -> None:
    readme = (ROOT / "services" / service / "README.md").read_text()
    for path in package(service).glob("*.py"):
        if not path.name.startswith("__"):
            assert f"`{path.stem}`" in readme, f"{path.stem} is missing"


def settings_fields(service: str) -> Iterator[tuple[str, bool]]:
    """Every field of each Settings of the service, and whether a docstring follows it."""
    for path in package(service).rglob("settings.py"):
        classes = [
            node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)
        ]
        (body,) = [node.body for node in classes if node.name == "Settings"]
        for node, following in zip(body, [*body[1:], None], strict=True):
            if isinstance(node, ast.AnnAssign):
                assert isinstance(node.target, ast.Name)
                documented = (
                    isinstance(following, ast.Expr)
                    and isinstance(following.value, ast.Constant)
                    and isinstance(following.value.value, str)
                )
                yield node.target.id, documented


@pytest.mark.parametrize("service", WITH_SETTINGS)
def test_every_setting_is_described(service: str) -> None:
    fields = list(settings_fields(service))
    assert fields
    assert [name for name, documented in fields if not documented] == []


# Of every service.
COMMON = {"CLOISTER_LOG_FORMAT"}


def settings_of(service: str) -> set[str]:
    return {f"CLOISTER_{name.upper()}" for name, _ in settings_fields(service)} | COMMON


COMPOSE = (ROOT / "compose.yaml").read_text()
EXAMPLE = (ROOT / ".env.example").read_text()
LISTED = dict(re.findall(r"^(?:# )?([A-Z][A-Z_]*)=(.*)$", EXAMPLE, re.MULTILINE))


def test_every_setting_is_in_the_example() -> None:
    for service in WITH_SETTINGS:
        assert settings_of(service) <= set(LISTED)


def test_all_that_compose_takes_from_the_environment_is_in_the_example_and_can_be_set() -> None:
    taken = set(re.findall(r"\$\{(\w+)", COMPOSE))
    assert "CLOISTER_DATASET" in taken
    settable = set(re.findall(r"^([A-Z_]+)=", EXAMPLE, re.MULTILINE))
    assert taken == settable


def test_the_example_lists_nothing_else() -> None:
    known = set(re.findall(r"\$\{(\w+)", COMPOSE)).union(*map(settings_of, WITH_SETTINGS))
    assert set(LISTED) <= known


def test_compose_and_example_have_the_same_defaults() -> None:
    for name, default in re.findall(r"\$\{(CLOISTER_\w+):-([^${}]*)\}", COMPOSE):
        assert LISTED[name] == default, name


def test_what_compose_sets_are_settings_of_the_service() -> None:
    services: dict[str, Any] = yaml.safe_load(COMPOSE)["services"]
    for service, described in services.items():
        if service in WITH_SETTINGS:
            assert set(described["environment"]) <= settings_of(service), service


def tracked() -> list[Path]:
    listed = subprocess.run(
        # The repository may belong to another user, in a container for example.
        ["git", "-c", "safe.directory=*", "ls-files", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


MACHINE = {
    "a package registry": re.compile(
        r"\b(pypi|pythonhosted|anaconda|npmjs|crates|rubygems|pytorch)\.(org|io|com)\b"
        r"|https?://\S+/simple\b|index-url\s*[=:]?\s*[\"']?https?:"
    ),
    # The cache of a container's own root user is no path of anyone's machine.
    "a home folder": re.compile(r"/(home|Users)/[A-Za-z]|/(?:root)/(?!\.cache/)"),
}


@pytest.mark.parametrize("what", MACHINE)
def test_no_file_names_something_of_one_machine(what: str) -> None:
    files = tracked()
    assert ROOT / "pyproject.toml" in files
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in files
        if (match := MACHINE[what].search(path.read_text(errors="replace")))
    ]
    assert found == []


LEAN = """
import importlib, pkgutil, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "sklearn") or name in ("concrete.fhe", "concrete.ml"):
            raise ImportError(f"{name} is not installed")

sys.meta_path.insert(0, Refuse())
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
    print(module.name)
"""


@pytest.mark.parametrize("service", ["inference", "keyholder"])
def test_it_needs_concretes_runtime_alone(service: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", LEAN, f"cloister_{service}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    modules = {path.stem for path in package(service).glob("*.py")} - {"__init__"}
    assert modules <= {line.split(".")[1] for line in result.stdout.splitlines()}


@pytest.mark.parametrize("service", ["client", "server", "trainer"])
def test_flowers_images_need_no_dataset_libraries(service: str) -> None:
    modules = {module.split(".")[0] for module in imported(package(service))}
    assert modules.isdisjoint({"datasets", "flwr_datasets", "concrete", "torch"})
