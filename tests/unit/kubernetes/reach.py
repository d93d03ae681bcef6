"""Who reaches whom, as network policies have it (networking.k8s.io/v1)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

Policy = dict[str, Any]


@dataclass(frozen=True)
class Peer:
    """A pod, or with no namespace something outside of the cluster."""

    name: str
    address: str
    namespace: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    def holds(expression: Mapping[str, Any]) -> bool:
        value, values = labels.get(expression["key"]), expression.get("values", [])
        match expression["operator"]:
            case "In":
                return value in values
            case "NotIn":
                return value not in values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
        raise AssertionError(f"no such operator: {expression}")

    return all(
        labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items()
    ) and all(map(holds, selector.get("matchExpressions") or ()))


def _is_meant(stated: Mapping[str, Any], peer: Peer, home: str) -> bool:
    """Whether an entry of ``from`` or ``to``, of a policy in the namespace ``home``, has a peer."""
    if "ipBlock" in stated:
        block, address = stated["ipBlock"], ip_address(peer.address)

        def has(cidr: str) -> bool:
            network = ip_network(cidr)
            return address.version == network.version and address in network

        return has(block["cidr"]) and not any(map(has, block.get("except", ())))
    if peer.namespace is None:
        return False
    if "namespaceSelector" in stated:
        # The API server labels every namespace with its name.
        of_namespace = {"kubernetes.io/metadata.name": peer.namespace}
        if not _selects(stated["namespaceSelector"], of_namespace):
            return False
    elif peer.namespace != home:
        return False
    return _selects(stated.get("podSelector", {}), peer.labels)


def _has_port(rule: Mapping[str, Any], target: Peer, port: int, protocol: str) -> bool:
    def fits(stated: Mapping[str, Any]) -> bool:
        if stated.get("protocol", "TCP") != protocol:
            return False
        if "port" not in stated:
            return True
        first = stated["port"]
        if isinstance(first, str):
            return target.ports.get(first) == port
        return bool(first <= port <= stated.get("endPort", first))

    return not rule.get("ports") or any(map(fits, rule["ports"]))


def _lets(
    policies: Iterable[Policy],
    direction: str,
    of: Peer,
    other: Peer,
    target: Peer,
    port: int,
    protocol: str,
) -> bool:
    """Whether the policies for one side let through; a pod without any lets everything."""
    if of.namespace is None:
        return True
    rules_of, peers_of = {"Ingress": ("ingress", "from"), "Egress": ("egress", "to")}[direction]
    confining = [
        policy
        for policy in policies
        if policy["metadata"]["namespace"] == of.namespace
        and _selects(policy["spec"]["podSelector"], of.labels)
        and direction in policy["spec"]["policyTypes"]
    ]
    return not confining or any(
        _has_port(rule, target, port, protocol)
        and (
            not rule.get(peers_of) or any(_is_meant(p, other, of.namespace) for p in rule[peers_of])
        )
        for policy in confining
        for rule in policy["spec"].get(rules_of) or ()
    )


def lets_out(
    policies: Iterable[Policy], source: Peer, target: Peer, port: int, protocol: str = "TCP"
) -> bool:
    """Whether a connection from source to a port of target leaves the source."""
    return _lets(policies, "Egress", source, target, target, port, protocol)


def lets_in(
    policies: Iterable[Policy], source: Peer, target: Peer, port: int, protocol: str = "TCP"
) -> bool:
    """Whether a connection from source to a port of target is taken by the target."""
    return _lets(policies, "Ingress", target, source, target, port, protocol)


def reaches(
    policies: Iterable[Policy], source: Peer, target: Peer, port: int, protocol: str = "TCP"
) -> bool:
    """Whether a connection from source to a port of target is let out, and let in."""
    policies = list(policies)
    return lets_out(policies, source, target, port, protocol) and lets_in(
        policies, source, target, port, protocol
    )
