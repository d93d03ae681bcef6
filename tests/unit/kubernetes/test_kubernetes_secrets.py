"""The Secrets that the docs have made of provision's folders hold what pods read."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from manifests import FOLDER, ROOT, SIMULATED, Workload, workloads

from cloister_provision.__main__ import provision
from cloister_provision.settings import Settings
from cloister_shared.tls import verify_server

DOCS = (ROOT / "docs" / "kubernetes.md").read_text()
PODS = workloads(*SIMULATED)


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What provision makes with the settings of the docs."""
    said = dict(re.findall(r"(CLOISTER_[A-Z_]+)=(\S+)", DOCS))
    folder: Path = tmp_path_factory.mktemp("provisioned") / said["CLOISTER_FEDERATION_DIR"]
    settings = Settings(
        federation_dir=folder,
        federation_names=said["CLOISTER_FEDERATION_NAMES"],
        service_domain=said["CLOISTER_SERVICE_DOMAIN"],
    )
    provision(settings)
    return folder


def secrets_read(workload: Workload) -> Iterator[tuple[str, str]]:
    """Secret and file of every path in the settings of a pod."""
    secrets = {
        v["name"]: v["secret"]["secretName"] for v in workload.pod["volumes"] if "secret" in v
    }
    for mount in workload.container["volumeMounts"]:
        if mount["name"] in secrets:
            for value in workload.environment.values():
                folder, _, name = value.rpartition("/")
                if folder == mount["mountPath"]:
                    yield secrets[mount["name"]], name


@pytest.mark.parametrize("service", sorted(PODS))
def test_every_file_that_a_pod_reads_is_made(federation: Path, service: str) -> None:
    made_otherwise = {
        ("access", "api-keys.json"),
        ("api-key", "api-key"),
        ("gateway-tls", "tls.pem"),
        # Of an invitation: enrolment does not know the token that provision made.
        ("join", "join.token"),
    }
    for secret, name in secrets_read(PODS[service]):
        if (secret, name) in made_otherwise:
            assert name in DOCS
        else:
            assert (federation / secret / name).stat().st_size


def test_the_docs_make_a_secret_of_every_folder_that_is_read(federation: Path) -> None:
    read = {secret for pod in PODS.values() for secret, _ in secrets_read(pod)}
    (listed,) = re.findall(r"for name in (.*); do\n +secret \$name", DOCS)
    made = set(listed.split()) | set(
        re.findall(r"^secret ([a-z-]+) --from-file=\S", DOCS, re.MULTILINE)
    )
    assert made == read
    assert set(listed.split()) <= {folder.name for folder in federation.iterdir()}
    assert "ca" not in made


@pytest.mark.parametrize(
    ("service", "setting"),
    [
        ("fleet", "CLOISTER_SUPERLINK"),
        ("fleet", "CLOISTER_ENROLMENT"),
        ("trainer", "CLOISTER_SUPERLINK"),
        ("enrolment", "CLOISTER_SUPERLINK"),
        ("client", "CLOISTER_SUPERLINK"),
        ("client", "CLOISTER_DEALER_URL"),
    ],
)
def test_certificates_bear_the_names_that_are_called(
    federation: Path, service: str, setting: str
) -> None:
    called = PODS[service].environment[setting].removeprefix("https://").split(":")[0]
    folder = federation / f"{called.split('.')[0]}-tls"
    pem = folder / "inside.pem"
    certificate, key = (pem, pem) if pem.exists() else (folder / "tls.crt", folder / "tls.key")
    verify_server(certificate, key, federation / "trust" / "ca.crt", called)


def test_images_are_pushed_and_named_as_the_docs_say() -> None:
    (pushed,) = re.findall(r"for name in (.*); do\n +docker tag", DOCS)
    used = re.findall(
        r"name: cloister/([a-z]+), newTag", (FOLDER / "every-pod/kustomization.yaml").read_text()
    )
    assert pushed.split() == used
    assert set(used) == {
        pod.container["image"].split("/")[1].split(":")[0] for pod in PODS.values()
    }
