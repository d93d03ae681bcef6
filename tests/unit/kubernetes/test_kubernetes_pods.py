"""How pods are confined, kept and replaced."""

import re
import tomllib
from typing import Any

import pytest
from manifests import (
    COMPOSE,
    EVERY_POD,
    FEDERATION,
    KUSTOMIZATIONS,
    ROOT,
    SIMULATED,
    Document,
    Workload,
    default,
    mebibytes,
    of_kind,
    render,
    settings,
    workloads,
)

PODS = workloads(*SIMULATED)
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
DOCS = (ROOT / "docs" / "kubernetes.md").read_text()
every_pod = pytest.mark.parametrize(
    "workload", [w for _, w in EVERY_POD], ids=[f"{place}-{w.name}" for place, w in EVERY_POD]
)


def scaled(*names: str) -> dict[str, Document]:
    """What scales each Deployment."""
    return {
        document["spec"]["scaleTargetRef"]["name"]: document["spec"]
        for document in of_kind(render(*names), "HorizontalPodAutoscaler").values()
    }


@every_pod
def test_it_fits_the_restricted_profile_and_more(workload: Workload) -> None:
    pod, container = workload.pod, workload.container
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["shareProcessNamespace"] is True
    assert "serviceAccountName" not in pod
    assert not {key for key in pod if key.startswith(("host", "init", "ephemeral"))}
    assert not {"hostPort", "hostIP"} & {key for p in container.get("ports", ()) for key in p}
    harmless = {"emptyDir", "secret", "configMap", "persistentVolumeClaim"}
    assert {kind for volume in pod["volumes"] for kind in volume} - {"name"} <= harmless


@every_pod
def test_its_only_place_to_write_beside_volumes_is_in_memory(workload: Workload) -> None:
    (tmp,) = [volume for volume in workload.pod["volumes"] if "emptyDir" in volume]
    assert tmp["emptyDir"] == {"medium": "Memory"}
    assert {"name": tmp["name"], "mountPath": "/tmp"} in workload.container["volumeMounts"]  # noqa: S108


@every_pod
def test_its_secrets_are_for_its_user_alone(workload: Workload) -> None:
    for volume in workload.pod["volumes"]:
        # That one has a certificate for everybody.
        if "secret" in volume and volume["secret"]["secretName"] != "trust":
            assert volume["secret"]["defaultMode"] == 0o400, volume


@every_pod
def test_it_runs_composes_image_of_this_version(workload: Workload) -> None:
    image = COMPOSE[workload.name]["image"].replace(
        "${CLOISTER_KEYHOLDER_IMAGE:-keyholder}", "keyholder"
    )
    assert workload.container["image"] == f"{image}:{VERSION}"
    assert workload.container["imagePullPolicy"] == "IfNotPresent"
    assert {"command", "args"}.isdisjoint(workload.container)
    assert workload.pod["nodeSelector"]["kubernetes.io/arch"] == "amd64"


@every_pod
def test_its_memory_is_bounded_as_in_compose(workload: Workload) -> None:
    resources = workload.container["resources"]
    composes = default(COMPOSE[workload.name]["deploy"]["resources"]["limits"]["memory"])
    assert mebibytes(resources["limits"]["memory"]) == mebibytes(composes)
    assert mebibytes(resources["requests"]["memory"]) * 4 == mebibytes(composes)
    assert resources["requests"]["cpu"]


@every_pod
def test_it_has_as_long_to_stop_as_in_compose(workload: Workload) -> None:
    seconds = int(COMPOSE[workload.name].get("stop_grace_period", "10s").removesuffix("s"))
    assert workload.pod["terminationGracePeriodSeconds"] == seconds
    lifecycle = workload.container.get("lifecycle", {})
    waits = lifecycle.get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert waits + longest_stop(workload.name) <= seconds


def longest_stop(service: str) -> int:
    """Seconds after which a service ends by itself once it was told to."""
    said = settings("base/settings.env")
    match service:
        case "gateway":
            return int(said["CLOISTER_CLIENT_SECONDS"])
        case "fleet":
            return int(said["CLOISTER_FLEET_CLIENT_SECONDS"])
        case "inference":
            return int(said["CLOISTER_DRAIN_SECONDS"]) + int(said["CLOISTER_SHUTDOWN_SECONDS"])
    return 0


@pytest.mark.parametrize("service", sorted(PODS))
def test_its_probes_ask_what_composes_health_check_asks(service: str) -> None:
    workload = PODS[service]
    probes = [
        workload.container[name]
        for name in ("startupProbe", "readinessProbe", "livenessProbe")
        if name in workload.container
    ]
    check = " ".join(COMPOSE[service].get("healthcheck", {}).get("test", ()))
    if not check:
        assert all("exec" in probe for probe in probes)
        return
    found = re.search(r"//(?:localhost|127\.0\.0\.1):(\d+)(/\S*?)'", check) or re.search(
        r"127\.0\.0\.1/(\d+).*GET (\S+)", check
    )
    assert found, check
    ready = workload.container["readinessProbe"]["httpGet"]
    assert (str(workload.ports[ready["port"]]), ready["path"]) == found.groups()
    assert ready.get("scheme", "HTTP") == ("HTTPS" if "https://" in check else "HTTP")
    # The console answers by no other name, and the kubelet would call it by its address.
    named = [{"name": "Host", "value": "localhost"}] if service == "console" else None
    assert all(p["httpGet"].get("httpHeaders") == named for p in probes if "httpGet" in p)
    for probe in probes:
        for asked in {"httpGet", "tcpSocket"} & probe.keys():
            assert probe[asked]["port"] in workload.ports


@pytest.mark.parametrize("service", ["gateway", "fleet", "inference"])
def test_it_is_replaced_without_a_gap_and_spread_over_nodes(service: str) -> None:
    workload = PODS[service]
    assert workload.spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    (spread,) = workload.pod["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    assert spread["labelSelector"] == workload.spec["selector"]
    budget = of_kind(render("base"), "PodDisruptionBudget")[service]["spec"]
    assert budget == {"maxUnavailable": 1, "selector": workload.spec["selector"]}
    scaler = scaled("base").get(service)
    assert (scaler["minReplicas"] if scaler else workload.spec["replicas"]) == 2


@pytest.mark.parametrize("service", ["enrolment", "dealer"])
def test_what_writes_a_register_is_never_there_twice(service: str) -> None:
    assert PODS[service].spec["replicas"] == 1
    assert PODS[service].spec["strategy"] == {"type": "Recreate"}


def test_there_is_one_superlink_and_as_many_simulated_sites_as_are_expected() -> None:
    kinds = {name for name, workload in PODS.items() if workload.kind == "StatefulSet"}
    assert kinds == {"server", "client"}
    assert PODS["server"].spec["replicas"] == 1
    expected = int(settings("base/settings.env")["CLOISTER_CLIENTS"])
    assert PODS["client"].spec["replicas"] == expected


def test_what_ends_in_compose_is_a_job() -> None:
    jobs = {name for name, workload in PODS.items() if workload.kind == "Job"}
    assert jobs == {name for name in PODS if "restart" not in COMPOSE[name]}
    for name in jobs:
        assert PODS[name].pod["restartPolicy"] == "Never"


def test_inference_and_gateway_are_scaled_by_load() -> None:
    scalers = scaled("base")
    assert set(scalers) == {"inference", "gateway"}
    for name, scaler in scalers.items():
        assert scaler["scaleTargetRef"] == {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "name": name,
        }
        # Else an update would set their number back.
        assert "replicas" not in PODS[name].spec
        (metric,) = scaler["metrics"]
        assert metric["resource"]["name"] == "cpu"
    found = int(settings("base/settings.env")["CLOISTER_REPLICAS_MAX"])
    assert scalers["inference"]["maxReplicas"] == found


@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_what_has_pods_selects_them_and_no_others(name: str) -> None:
    for workload in workloads(name).values():
        own = {"app.kubernetes.io/name": workload.name}
        assert own.items() <= workload.labels.items()
        if workload.kind != "Job":
            assert workload.spec["selector"]["matchLabels"] == own


def test_services_lead_to_ports_of_pods() -> None:
    services = of_kind(render("simulated"), "Service")
    assert set(services) == {
        "server",
        "enrolment",
        "fleet",
        "gateway",
        "inference",
        "dealer",
        "console",
    }
    for name, service in services.items():
        spec = service["spec"]
        assert spec["selector"] == {"app.kubernetes.io/name": name}
        for port in spec["ports"]:
            assert PODS[name].ports[port["targetPort"]] == port["port"]
        # Nothing is published by itself.
        assert "type" not in spec
    # One address a replica, for the gateway's own checks.
    assert services["inference"]["spec"]["clusterIP"] == "None"
    assert services["inference"]["spec"]["publishNotReadyAddresses"]


def test_all_that_is_called_by_name_is_a_service() -> None:
    services = of_kind(render("simulated"), "Service")
    called = {
        address
        for workload in PODS.values()
        for value in workload.environment.values()
        for address in re.findall(r"^(?:https?://)?([a-z][a-z.-]*:\d+)$", value)
    }
    assert len(called) == 7
    for address in called:
        host, port = address.split(":")
        name, _, domain = host.partition(".")
        assert domain in {"", "cloister.svc.cluster.local"}
        assert int(port) in {p["port"] for p in services[name]["spec"]["ports"]}


@pytest.mark.parametrize("service", ["gateway", "fleet"])
def test_haproxy_gets_names_in_full(service: str) -> None:
    """It asks name servers itself, and uses no search domain."""
    names = ("CLOISTER_UPSTREAM", "CLOISTER_SUPERLINK", "CLOISTER_ENROLMENT")
    given = [v for k, v in PODS[service].environment.items() if k in names]
    assert given
    assert all(".cloister.svc.cluster.local:" in value for value in given)
    assert "CLOISTER_SERVICE_DOMAIN=cloister.svc.cluster.local" in DOCS


@pytest.mark.parametrize("names", [FEDERATION, SIMULATED, ("site",)])
def test_what_pods_mount_is_there_or_in_the_docs(names: tuple[str, ...]) -> None:
    documents = render(*names)
    claims, maps = of_kind(documents, "PersistentVolumeClaim"), of_kind(documents, "ConfigMap")
    sources: list[dict[str, Any]] = [
        volume for workload in workloads(*names).values() for volume in workload.pod["volumes"]
    ]
    for volume in sources:
        if "persistentVolumeClaim" in volume:
            assert volume["persistentVolumeClaim"]["claimName"] in claims
        if "configMap" in volume:
            assert volume["configMap"].get("optional") or volume["configMap"]["name"] in maps
        if "secret" in volume:
            assert re.search(rf"\b{volume['secret']['secretName']}\b", DOCS)
    for workload in workloads(*names).values():
        for source in workload.container.get("envFrom", ()):
            assert source["configMapRef"]["name"] in maps


def test_the_rows_of_a_site_stay_on_their_node() -> None:
    documents = render("site")
    (volume,) = of_kind(documents, "PersistentVolume").values()
    claim = of_kind(documents, "PersistentVolumeClaim")["rows"]
    assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
    assert volume["spec"]["claimRef"] == {"namespace": "cloister-site", "name": "rows"}
    assert "local" in volume["spec"]
    assert volume["spec"]["nodeAffinity"]["required"]
    assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert workloads("site")["client"].spec["replicas"] == 1


def test_no_secret_is_among_the_manifests() -> None:
    for name in KUSTOMIZATIONS:
        assert not of_kind(render(name), "Secret")
