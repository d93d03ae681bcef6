"""Services with the compiled models of the session, and models opened on them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_service import FakeService, stock_server

from cloister_keyholder import EncryptedModel
from cloister_shared.artifact import REFERENCE
from cloister_shared.reference import Reference

URL = "http://service.test"


@pytest.fixture(scope="session")
def digits_folder(digits_artifacts: Path) -> Path:
    return digits_artifacts / "artifacts" / "digits" / "1"


@pytest.fixture(scope="session")
def breast_cancer_folder(breast_cancer_artifacts: Path) -> Path:
    return breast_cancer_artifacts / "artifacts" / "breast_cancer" / "1"


@pytest.fixture(scope="session")
def digits_server(digits_folder: Path) -> Any:
    return stock_server(digits_folder)


@pytest.fixture(scope="session")
def breast_cancer_server(breast_cancer_folder: Path) -> Any:
    return stock_server(breast_cancer_folder)


@pytest.fixture
def digits_service(digits_folder: Path, digits_server: Any) -> FakeService:
    return FakeService(digits_folder, digits_server)


@pytest.fixture
def breast_cancer_service(breast_cancer_folder: Path, breast_cancer_server: Any) -> FakeService:
    return FakeService(breast_cancer_folder, breast_cancer_server)


@pytest.fixture
def digits(digits_service: FakeService) -> Iterator[EncryptedModel]:
    with EncryptedModel(URL, "digits", transport=digits_service.transport) as model:
        yield model


@pytest.fixture
def breast_cancer(breast_cancer_service: FakeService) -> Iterator[EncryptedModel]:
    with EncryptedModel(URL, "breast_cancer", transport=breast_cancer_service.transport) as model:
        yield model


@pytest.fixture
def digits_reference(digits_folder: Path) -> Reference:
    return Reference.read(digits_folder / REFERENCE)


@pytest.fixture
def breast_cancer_reference(breast_cancer_folder: Path) -> Reference:
    return Reference.read(breast_cancer_folder / REFERENCE)
