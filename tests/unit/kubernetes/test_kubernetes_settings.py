"""Settings of the pods, compared with compose.yaml and .env.example."""

import re

import pytest
import yaml
from manifests import (
    BY_HAND,
    COMPOSE,
    FOLDER,
    ROOT,
    SIMULATED,
    of_kind,
    render,
    settings,
    workloads,
)

EXAMPLE = dict(
    re.findall(r"^(?:# )?([A-Z][A-Z_]*)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
)
SITE = yaml.safe_load((ROOT / "docker" / "site.compose.yaml").read_text())["services"]["client"]
BASE, SIMULATION = settings("base/settings.env"), settings("simulated/settings.env")
PODS = workloads(*SIMULATED)
NOT_HERE = {
    # Files of one machine, and what is said of their columns.
    "dealer": {"MNIST_PATH", "DATA_PATH", "LABEL_COLUMN", "IGNORED_COLUMNS"},
}
OTHERWISE = {
    # Full names, which HAProxy needs.
    ("gateway", "CLOISTER_UPSTREAM"): "inference.cloister.svc.cluster.local:8000",
    ("fleet", "CLOISTER_SUPERLINK"): "server.cloister.svc.cluster.local:8000",
    ("fleet", "CLOISTER_ENROLMENT"): "enrolment.cloister.svc.cluster.local:8003",
    # Files of a Secret are in a folder.
    ("gateway", "CLOISTER_GATEWAY_TLS_PEM"): "/gateway-tls/tls.pem",
    ("keyholder", "CLOISTER_API_KEY_PATH"): "/api-key/api-key",
    # Where a browser finds them, by kubectl port-forward.
    ("console", "CLOISTER_URL"): "http://127.0.0.1:8000",
    ("keyholder", "CLOISTER_CONSOLE_URL"): "http://127.0.0.1:8080",
    # Served with API keys or not at all.
    ("inference", "CLOISTER_PUBLISHED_HOST"): "0.0.0.0",  # noqa: S104
    # What collects logs of a cluster reads JSON.
    **{(name, "CLOISTER_LOG_FORMAT"): "json" for name in set(COMPOSE) - BY_HAND},
}


@pytest.mark.parametrize("service", sorted(set(COMPOSE) - BY_HAND))
def test_it_has_composes_settings(service: str) -> None:
    pod, composes = PODS[service], COMPOSE[service]["environment"]
    said = {k: v for k, v in composes.items() if isinstance(v, str) and "${" not in v}
    said |= {k: str(v) for k, v in composes.items() if isinstance(v, int)}
    left_out = {f"CLOISTER_{name}" for name in NOT_HERE.get(service, ())}
    own = {name: value for (of, name), value in OTHERWISE.items() if of == service}
    # That one is a user's choice here.
    expected = {
        k: v for k, v in (said | own).items() if k not in left_out | {"CLOISTER_SCHEMA_PATH"}
    }
    assert pod.environment == expected
    from_map = set(composes) - left_out - set(expected)
    assert from_map <= BASE.keys() | SIMULATION.keys()
    reads = pod.container.get("envFrom", [])
    assert reads == ([{"configMapRef": {"name": "settings"}}] if from_map else [])


def test_what_can_be_set_is_what_compose_takes_for_these_services() -> None:
    taken = {
        name
        for service in PODS
        for name in COMPOSE[service]["environment"]
        if name not in PODS[service].environment
    }
    taken -= {f"CLOISTER_{name}" for names in NOT_HERE.values() for name in names}
    assert BASE.keys().isdisjoint(SIMULATION)
    assert BASE.keys() | SIMULATION.keys() == taken
    real = {
        name
        for s in PODS
        if s not in {"dealer", "client", "keyholder"}
        for name in taken
        if name in COMPOSE[s]["environment"] and name not in PODS[s].environment
    }
    assert BASE.keys() == real - {"CLOISTER_DEAL_PATH"}


def test_defaults_are_the_examples() -> None:
    found = BASE | SIMULATION
    # Compose adds the console's origins where none are set, and nothing does here.
    port = EXAMPLE["CLOISTER_CONSOLE_PORT"]
    origins = [f"http://{host}:{port}" for host in ("127.0.0.1", "localhost")]
    assert found.pop("CLOISTER_CORS_ORIGINS").split(",") == origins
    for name, value in found.items():
        expected = EXAMPLE["CLOISTER_DATASET" if name == "CLOISTER_MODEL" else name]
        assert value == expected, name


def test_the_maps_have_what_the_files_say() -> None:
    assert of_kind(render("base"), "ConfigMap")["settings"]["data"] == BASE
    assert of_kind(render("simulated"), "ConfigMap")["settings"]["data"] == BASE | SIMULATION


def test_a_site_sets_what_a_site_with_compose_sets() -> None:
    mine = settings("site/settings.env")
    environment = workloads("site")["client"].environment
    assert mine.keys() | environment.keys() == set(SITE["environment"])
    assert mine.keys().isdisjoint(environment)
    assert mine["CLOISTER_ENROLMENT_URL"] == f"https://{mine['CLOISTER_SUPERLINK']}"
    example = (ROOT / "docker" / "site.env.example").read_text()
    listed = dict(re.findall(r"^(\w+)=(.*)$", example, re.MULTILINE))
    for name in mine.keys() - {"CLOISTER_ENROLMENT_URL"}:
        assert mine[name] == listed[name], name


def test_every_setting_is_known() -> None:
    known = EXAMPLE.keys() | {name for s in COMPOSE.values() for name in s["environment"]}
    used = {
        name
        for path in FOLDER.rglob("*")
        if path.is_file()
        for name in re.findall(r"CLOISTER_[A-Z_]*[A-Z]", path.read_text())
    }
    assert used
    assert used <= known
