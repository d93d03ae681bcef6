"""The manifests are whole, and Kubernetes knows every field in them."""

from typing import Any

import kubernetes_validate
import pytest
import yaml
from manifests import FOLDER, KUSTOMIZATIONS, ROOT, render

OLDEST, CURRENT = "1.30", "1.37"
"""Versions of Kubernetes, of those whose schemas the validator has."""


def valid(document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("version", [OLDEST, CURRENT])
@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_every_document_fits_the_schema(name: str, version: str) -> None:
    documents = render(name)
    assert documents
    for document in documents:
        valid(document, version)


def test_the_docs_name_these_versions() -> None:
    docs = (ROOT / "docs" / "kubernetes.md").read_text()
    assert f"Kubernetes {OLDEST} or newer" in docs
    assert f"{OLDEST} and {CURRENT}" in docs


def test_the_schema_knows_what_is_wrong() -> None:
    """So that a validator that takes everything is seen."""
    (job,) = render("compile")
    job["spec"]["template"]["spec"]["containers"][0]["readOnlyRootFileSystem"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        valid(job, CURRENT)


def test_there_are_the_kustomizations_that_the_docs_name() -> None:
    assert KUSTOMIZATIONS == [
        "base",
        "compile",
        "simulated",
        "simulated/evaluate",
        "simulated/train",
        "site",
        "train",
    ]


def test_every_file_is_in_its_kustomization() -> None:
    for path in FOLDER.rglob("kustomization.yaml"):
        described = yaml.safe_load(path.read_text())
        named = set(described.get("resources", []))
        named |= {patch["path"] for patch in described.get("patches", ())}
        named |= {env for m in described.get("configMapGenerator", ()) for env in m["envs"]}
        files = {other.name for other in path.parent.iterdir() if other.is_file()}
        assert {name for name in named if "/" not in name} == files - {path.name}, path


def test_what_is_in_a_namespace_is_in_the_right_one() -> None:
    for name in KUSTOMIZATIONS:
        expected = "cloister-site" if name == "site" else "cloister"
        for document in render(name):
            metadata = document["metadata"]
            if document["kind"] == "Namespace":
                assert metadata["name"] == expected
                assert metadata["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
            elif document["kind"] != "PersistentVolume":
                assert metadata["namespace"] == expected, metadata
