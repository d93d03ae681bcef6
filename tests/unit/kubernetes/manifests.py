"""The manifests as kustomize renders them, and compose.yaml, which they are compared with."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "docker" / "kubernetes"
KUSTOMIZATIONS = sorted(
    str(path.parent.relative_to(FOLDER))
    for path in FOLDER.rglob("kustomization.yaml")
    if yaml.safe_load(path.read_text())["kind"] == "Kustomization"
)
FEDERATION = ("base", "train", "compile")
"""What one federation of real sites consists of."""
SIMULATED = ("simulated", "simulated/train", "compile", "simulated/evaluate")
"""All of compose.yaml."""
BY_HAND = {"provision", "sites", "api-keys"}
"""Services of compose.yaml that a person runs, outside of the cluster or in a container of it."""
CLUSTERS_OWN = {"prometheus"}
"""Services whose part a cluster has its own for."""
COMPOSE: dict[str, Any] = {
    name: service
    for name, service in yaml.safe_load((ROOT / "compose.yaml").read_text())["services"].items()
    if name not in CLUSTERS_OWN
}

Document = dict[str, Any]


@cache
def _rendered(name: str) -> str:
    kubectl = Path(sys.executable).with_name("kubectl")
    result = subprocess.run(
        [kubectl, "kustomize", FOLDER / name], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert not result.stderr, result.stderr
    return json.dumps(list(yaml.safe_load_all(result.stdout)))


def render(*names: str) -> list[Document]:
    """Every document of these kustomizations."""
    return [document for name in names for document in json.loads(_rendered(name))]


def of_kind(documents: list[Document], kind: str) -> dict[str, Document]:
    """The documents of one kind, by name."""
    return {d["metadata"]["name"]: d for d in documents if d["kind"] == kind}


@dataclass(frozen=True)
class Workload:
    """What has a template of pods, of which each has one container."""

    name: str
    namespace: str
    document: Document

    @property
    def kind(self) -> str:
        kind: str = self.document["kind"]
        return kind

    @property
    def spec(self) -> Document:
        spec: Document = self.document["spec"]
        return spec

    @property
    def pod(self) -> Document:
        pod: Document = self.spec["template"]["spec"]
        return pod

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.spec["template"]["metadata"]["labels"]
        return labels

    @property
    def container(self) -> Document:
        (container,) = self.pod["containers"]
        described: Document = container
        return described

    @property
    def ports(self) -> dict[str, int]:
        return {port["name"]: port["containerPort"] for port in self.container.get("ports", ())}

    @property
    def environment(self) -> dict[str, str]:
        return {variable["name"]: variable["value"] for variable in self.container.get("env", ())}

    @property
    def volumes(self) -> dict[str, Document]:
        """What each volume is, by the name it has in the pod."""
        templates = {t["metadata"]["name"]: t for t in self.spec.get("volumeClaimTemplates", ())}
        return {volume["name"]: volume for volume in self.pod["volumes"]} | templates

    @property
    def claims(self) -> set[str]:
        """Claims that its pods share."""
        return {
            volume["persistentVolumeClaim"]["claimName"]
            for volume in self.pod["volumes"]
            if "persistentVolumeClaim" in volume
        }


def workloads(*names: str) -> dict[str, Workload]:
    """Everything with pods in these kustomizations, by name."""

    def found() -> Iterator[Workload]:
        for document in render(*names):
            if "template" in document.get("spec", {}):
                metadata = document["metadata"]
                yield Workload(metadata["name"], metadata["namespace"], document)

    listed = list(found())
    by_name = {workload.name: workload for workload in listed}
    assert len(by_name) == len(listed)
    return by_name


EVERY_POD = [(name, workload) for name in KUSTOMIZATIONS for workload in workloads(name).values()]
"""Every workload of every kustomization, those that are in several as often."""


def settings(path: str) -> dict[str, str]:
    """What an env file under the manifests sets."""
    return dict(re.findall(r"^(\w+)=(.*)$", (FOLDER / path).read_text(), re.MULTILINE))


def mebibytes(amount: str) -> int:
    """An amount of memory as Compose (2g, 512m) or Kubernetes (2Gi, 512Mi) writes it."""
    match = re.fullmatch(r"(\d+)(Mi|Gi|m|g)", amount)
    assert match, amount
    return int(match[1]) * (1024 if match[2] in {"Gi", "g"} else 1)


def default(value: str) -> str:
    """What Compose takes where nothing is set: the default of ``${NAME:-default}``."""
    match = re.fullmatch(r"\$\{\w+:-(.*)\}", str(value))
    return match[1] if match else str(value)
