"""Who reaches whom and who mounts what in Kubernetes, compared with compose.yaml."""

from ipaddress import ip_address
from itertools import permutations
from typing import Any

import pytest
from manifests import (
    BY_HAND,
    COMPOSE,
    FEDERATION,
    KUSTOMIZATIONS,
    SIMULATED,
    Workload,
    of_kind,
    render,
    workloads,
)
from reach import Peer, Policy, lets_in, lets_out, reaches

IN_CLUSTER = sorted(set(COMPOSE) - BY_HAND)
PODS = workloads(*SIMULATED)
LABEL = "network.cloister/"
NAMES = f"{LABEL}names"

# Everything that any service of the federation asks of another.
CALLS = {
    ("client", "dealer", 8001),
    ("client", "fleet", 8443),
    ("fleet", "server", 8000),
    ("fleet", "enrolment", 8003),
    ("enrolment", "server", 8000),
    ("trainer", "server", 8000),
    ("keyholder", "gateway", 8000),
    ("gateway", "inference", 8000),
}
# Those that have a network in common in compose.yaml, and of whom neither calls the other.
STRANGERS = {frozenset({"dealer", "fleet"}), frozenset({"trainer", "enrolment"})}

PUBLIC = Peer("public", "93.184.215.14")
PUBLIC_6 = Peer("public", "2606:2800:21f:cb07::1")
PRIVATE = [
    Peer("private", address)
    for address in (
        "10.1.2.3",
        "172.31.0.7",
        "192.168.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "fd00::1",
        "fe80::1",
    )
]
NAME_SERVER = Peer("dns", "10.96.0.10", "kube-system", {"k8s-app": "kube-dns"})
STRANGER = Peer("stranger", "10.0.9.9", "elsewhere", {"app.kubernetes.io/name": "trainer"})


def peers(found: dict[str, Workload]) -> dict[str, Peer]:
    """A pod of each, with an address as pods have."""
    return {
        name: Peer(name, f"10.0.0.{number}", w.namespace, w.labels, w.ports)
        for number, (name, w) in enumerate(sorted(found.items()), 1)
    }


def policies(*names: str) -> list[Policy]:
    return list(of_kind(render(*names), "NetworkPolicy").values())


PEERS = peers(PODS)
POLICIES = policies(*SIMULATED)
PORTS = {22, 53, 80, 443} | {port for peer in PEERS.values() for port in peer.ports.values()}


def networks(service: str) -> set[str]:
    described = COMPOSE[service].get("networks", [])
    return set(described)


def test_every_service_has_its_counterpart() -> None:
    assert set(PODS) == set(IN_CLUSTER)
    simulated = {"dealer", "client", "keyholder"}
    assert set(workloads(*FEDERATION)) == set(IN_CLUSTER) - simulated
    assert set(workloads("site")) == {"client"}


@pytest.mark.parametrize("service", IN_CLUSTER)
def test_it_is_on_composes_networks(service: str) -> None:
    labels = PODS[service].labels
    joined = {key.removeprefix(LABEL) for key in labels if key.startswith(LABEL)} - {"names"}
    # On the first is nobody else, and it is reached on loopback alone: by kubectl port-forward. The
    # other is for Prometheus, of which a cluster has its own.
    assert joined == networks(service) - {"console", "watch"}


def test_whoever_is_reached_is_called_and_no_other() -> None:
    reached = {
        (source.name, target.name, port)
        for source, target in permutations(PEERS.values(), 2)
        for port in target.ports.values()
        if reaches(POLICIES, source, target, port)
    }
    assert reached == CALLS


def test_who_reaches_whom_is_as_composes_networks_have_it() -> None:
    """At any port, whether something listens or not; ``edge`` is for those from outside."""
    reached = {
        frozenset({source.name, target.name})
        for source, target in permutations(PEERS.values(), 2)
        if any(reaches(POLICIES, source, target, port) for port in PORTS)
    }
    in_common = {
        frozenset({one, other})
        for one, other in permutations(IN_CLUSTER, 2)
        if (networks(one) & networks(other)) - {"edge"}
    }
    assert in_common >= STRANGERS
    assert reached == in_common - STRANGERS


def test_each_side_alone_keeps_to_it() -> None:
    """Neither policy of a pair relies on the other to be right."""
    published = {("gateway", 8443), ("fleet", 8443)}
    for source, target in permutations(PEERS.values(), 2):
        for port in PORTS:
            out = lets_out(POLICIES, source, target, port)
            assert out == reaches(POLICIES, source, target, port), (source.name, target.name, port)
            if (target.name, port) not in published:
                assert out == lets_in(POLICIES, source, target, port), (source.name, target.name)


def test_a_pod_of_the_same_kind_is_not_reached_either() -> None:
    for peer in PEERS.values():
        twin = Peer(peer.name, "10.0.1.1", peer.namespace, peer.labels, peer.ports)
        assert not any(reaches(POLICIES, peer, twin, port) for port in PORTS), peer.name


def test_the_dealer_alone_reaches_the_outside_and_that_by_https() -> None:
    for outside in (PUBLIC, PUBLIC_6):
        reached = {
            (name, port)
            for name, peer in PEERS.items()
            for port in PORTS
            if reaches(POLICIES, peer, outside, port)
        }
        assert reached == {("dealer", 443)}
    assert {name for name in IN_CLUSTER if "outside" in networks(name)} == {"dealer"}


def test_nobody_reaches_nodes_and_metadata() -> None:
    for peer in PEERS.values():
        for private in PRIVATE:
            assert not ip_address(private.address).is_global
            assert not any(reaches(POLICIES, peer, private, port) for port in PORTS)


def test_a_federation_of_real_sites_has_no_way_out() -> None:
    here = policies(*FEDERATION)
    for peer in peers(workloads(*FEDERATION)).values():
        for outside in (PUBLIC, PUBLIC_6, *PRIVATE):
            assert not any(reaches(here, peer, outside, port) for port in PORTS), peer.name


def test_who_is_published_is_reached_from_outside_at_that_port_alone() -> None:
    published = {
        (name, int(port.rsplit(":", 1)[1]))
        for name in IN_CLUSTER
        for port in COMPOSE[name].get("ports", ())
        if not port.startswith("127.0.0.1:")
    }
    assert {name for name, _ in published} == {n for n in IN_CLUSTER if "edge" in networks(n)}
    for outside in (PUBLIC, PUBLIC_6, STRANGER, *PRIVATE):
        reached = {
            (name, port)
            for name, peer in PEERS.items()
            for port in PORTS
            if reaches(POLICIES, outside, peer, port)
        }
        assert reached == published


def test_who_calls_looks_up_names_and_nobody_else_does() -> None:
    found = {
        name
        for name, peer in PEERS.items()
        if reaches(POLICIES, peer, NAME_SERVER, 53, "UDP")
        and reaches(POLICIES, peer, NAME_SERVER, 53)
    }
    assert found == {source for source, _, _ in CALLS} | {"dealer"}
    for peer in PEERS.values():
        assert not reaches(POLICIES, peer, NAME_SERVER, 443)
        other = Peer("other", "10.96.0.11", "kube-system", {"k8s-app": "metrics-server"})
        assert not any(reaches(POLICIES, peer, other, port) for port in PORTS)


def test_a_site_calls_out_and_is_not_called() -> None:
    here = policies("site")
    (site,) = peers(workloads("site")).values()
    out = {port for port in PORTS if reaches(here, site, PUBLIC, port)}
    assert out == {8443}
    assert reaches(here, site, NAME_SERVER, 53, "UDP")
    for source in (PUBLIC, STRANGER, NAME_SERVER):
        assert not any(reaches(here, source, site, port) for port in PORTS)


@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_every_label_of_a_network_is_meant_by_a_policy(name: str) -> None:
    """So that a slip of the pen in either is seen."""
    here = policies("site") if name == "site" else POLICIES
    meant = {
        pair
        for policy in here
        for pair in policy["spec"]["podSelector"].get("matchLabels", {}).items()
    }
    used = {
        pair
        for workload in workloads(name).values()
        for pair in workload.labels.items()
        if pair[0].startswith(LABEL)
    }
    assert used <= meant


def mounts(workload: Workload) -> dict[str, tuple[str, str]]:
    """Path and way of mounting, by the volume's name outside of the pod."""
    found = {}
    for mount in workload.container["volumeMounts"]:
        volume = workload.volumes[mount["name"]]
        if "emptyDir" in volume:
            assert mount["mountPath"] == "/tmp"  # noqa: S108
            continue
        claim = volume.get("persistentVolumeClaim", {})
        secret, public = volume.get("secret", {}), volume.get("configMap", {})
        name = claim.get("claimName") or secret.get("secretName") or public.get("name")
        way = "read" if mount.get("readOnly") else "write"
        # Said twice: a claim that is only read is attached for reading.
        assert bool(claim.get("readOnly")) == bool(claim and way == "read"), mount
        found[name or mount["name"]] = (mount["mountPath"], way)
    return found


def composes_mounts(service: str) -> dict[str, tuple[str, str]]:
    """The same of compose.yaml, with the names that binds have here."""
    # Not here: files of one machine, which a cluster has not.
    binds = {"/tls.pem": "gateway-tls", "/api-key": "api-key", "/schema.json": "schema"}
    found = {}
    for volume in COMPOSE[service]["volumes"]:
        if isinstance(volume, dict):
            name = binds.get(volume["target"])
            if name:
                found[name] = (f"/{name}", "read")
            else:
                assert (service, volume["target"]) in {
                    ("dealer", "/mnist.npz"),
                    ("dealer", "/rows"),
                }
        elif ":" in volume:
            source, target, *way = volume.split(":")
            found[source] = (target, "read" if way == ["ro"] else "write")
        else:
            found["data"] = (volume, "write")
    return found


@pytest.mark.parametrize("service", IN_CLUSTER)
def test_it_mounts_what_compose_mounts(service: str) -> None:
    assert mounts(PODS[service]) == composes_mounts(service)


def test_real_sites_have_no_deal() -> None:
    trainer = mounts(workloads("train")["trainer"])
    assert trainer == {k: v for k, v in composes_mounts("trainer").items() if k != "deal"}


def test_a_site_reads_its_rows_and_writes_its_key_alone() -> None:
    assert mounts(workloads("site")["client"]) == {
        "data": ("/data", "write"),
        "rows": ("/site", "read"),
        "trust": ("/trust", "read"),
        "join": ("/join", "read"),
    }


def kinds(workload: Workload) -> dict[str, str]:
    return {
        name: kind
        for volume in workload.pod["volumes"]
        for kind in volume
        if kind != "name"
        for name in [volume["name"]]
    }


def test_what_provision_makes_is_secret_and_the_rest_is_claimed() -> None:
    made: set[str] = {
        volume.split(":")[0]
        for volume in COMPOSE["provision"]["volumes"]
        if isinstance(volume, str)
    }
    secrets: set[Any] = set()
    claims: set[str] = set()
    for workload in PODS.values():
        secrets |= {name for name, kind in kinds(workload).items() if kind == "secret"}
        claims |= workload.claims
    # Nothing in the cluster has the CA's key; enrolment writes its own folder.
    assert secrets == (made - {"ca", "enrolment"}) | {"access", "api-key", "gateway-tls"}
    written = {volume for service in IN_CLUSTER for volume in composes_mounts(service)}
    assert claims == written - secrets - {"schema", "data", "state"}


def test_claims_that_pods_on_several_nodes_use_at_once_allow_it() -> None:
    claims = of_kind(render(*SIMULATED), "PersistentVolumeClaim")
    scaled = {
        document["spec"]["scaleTargetRef"]["name"]
        for document in of_kind(render(*SIMULATED), "HorizontalPodAutoscaler").values()
    }
    for name, claim in claims.items():
        users = [workload for workload in PODS.values() if name in workload.claims]
        assert users, name
        staying = any(workload.kind != "Job" for workload in users)
        together = (len(users) > 1 and staying) or any(w.name in scaled for w in users)
        expected = ["ReadWriteMany" if together else "ReadWriteOnce"]
        assert claim["spec"]["accessModes"] == expected, name
