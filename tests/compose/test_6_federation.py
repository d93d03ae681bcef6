"""The federation in containers: who gets in, what passes, what stays secret; a site elsewhere."""

import json
import re
import ssl
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import httpx
import numpy as np
import pytest
from certificate import self_signed
from sklearn.datasets import load_digits
from stack import FEDERATION_PORT, PROJECT, Stack, reachable

from cloister_shared.datasets import schema

CLIENTS = 3
VOLUMES = [
    *("ca", "trust", "control", "join", "enrolment"),
    *(f"{service}-tls" for service in ("server", "fleet", "dealer", "enrolment")),
]
# Run inside of a client's container, with what is there.
ASK_ALL = """
import json, ssl, httpx
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES
trust = ssl.create_default_context(cafile="/trust/ca.crt")
headers = {"content-type": "application/protobuf"}
with httpx.Client(base_url="https://fleet:8443", verify=trust, timeout=30) as http:
    print(json.dumps([
        [path, answer.status_code, answer.headers.get("content-type", "")]
        for method, path in PROTOBUF_REQUEST_TYPES
        for answer in [http.request(method, path, headers=headers)]
    ]))
"""
REACH = """
import json, socket, sys
reached = {}
for host, port in json.loads(sys.argv[1]):
    try:
        socket.create_connection((host, port), timeout=3).close()
        reached[f"{host}:{port}"] = "reached"
    except OSError as error:
        reached[f"{host}:{port}"] = type(error).__name__
print(json.dumps(reached))
"""
SPEAK = """
import json, socket, ssl, urllib.request as u, urllib.error
said = {}
for host, port in (("fleet", 8443), ("dealer", 8001)):
    with socket.create_connection((host, port), timeout=10) as plain:
        plain.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        try:
            said[host] = plain.recv(100).decode(errors="replace")
        except ConnectionResetError:
            said[host] = ""
    try:
        u.urlopen(f"https://{host}:{port}/", timeout=10)
    except urllib.error.URLError as error:
        said[f"{host} to strangers"] = type(error.reason).__name__
    trusted = ssl.create_default_context(cafile="/trust/ca.crt")
    with socket.create_connection((host, port), timeout=10) as plain:
        with trusted.wrap_socket(plain, server_hostname=host) as secure:
            said[f"{host} to sites"] = secure.version()
print(json.dumps(said))
"""
UNKNOWN_NODE = """
import ssl, httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
key = ec.generate_private_key(ec.SECP384R1())
signer = NodeAuthHttpInterceptor(key, key.public_key())
with FleetHttpClient.from_server_address(
    "fleet:8443", False, "/trust/ca.crt", interceptors=[signer]
) as client:
    request = ActivateNodeRequest(
        public_key=public_key_to_bytes(key.public_key()), heartbeat_interval=30
    )
    try:
        client.ActivateNode(request)
    except httpx.HTTPStatusError as error:
        print(error.response.status_code, error.response.text)
"""


@cache
def address() -> str:
    """Of this machine, as containers of any network reach it."""
    return subprocess.run(
        [
            *("docker", "network", "inspect", "bridge"),
            *("--format", "{{(index .IPAM.Config 0).Gateway}}"),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


@pytest.fixture(scope="module", autouse=True)
def _federation(stack: Stack) -> None:
    # Nothing of another module's: neither its volumes nor what it revoked.
    stack.compose("down", "--volumes", "--timeout", "5")
    settings(stack)
    stack.compose("up", "--detach", "--scale", f"client={CLIENTS}", "client")
    stack.until(lambda: len(enrolled(stack)) == CLIENTS, f"enrolment of {CLIENTS} sites")


def settings(stack: Stack, **more: object) -> None:
    stack.settings(
        clients=CLIENTS,
        rounds=2,
        federation_host=address(),
        federation_names=f"{address()},sites.example",
        **more,
    )


def sites(stack: Stack, *command: str) -> str:
    """What the tool for people says."""
    return stack.compose("run", "--rm", "--no-deps", "sites", *command)


def register(stack: Stack) -> str:
    """The register of sites, as enrolment keeps it: faster than the tool."""
    (enrolment,) = stack.containers("enrolment")
    try:
        return stack.execute(enrolment, "cat", "/enrolment/nodes.json")
    except subprocess.CalledProcessError:
        return '{"nodes": []}'


def enrolled(stack: Stack) -> dict[str, str]:
    """Numbers of the nodes of all enrolled sites, by name."""
    return {
        node["name"]: node["node_id"]
        for node in json.loads(register(stack))["nodes"]
        if not node.get("revoked")
    }


def in_client(stack: Stack, code: str, *arguments: str) -> str:
    return stack.execute(stack.containers("client")[0], "python", "-c", code, *arguments)


def test_of_all_that_a_superlink_does_a_site_reaches_the_fleets_part_alone(stack: Stack) -> None:
    answers = json.loads(in_client(stack, ASK_ALL))
    refused = {path for path, status, kind in answers if "problem+json" in kind and status == 404}
    passed = {path for path, _, _ in answers} - refused
    # What these are asked without a key the SuperLink itself refuses.
    assert passed == {
        f"/v1/fleet/{call}"
        for call in (
            *("activate-node", "deactivate-node", "send-node-heartbeat", "get-run", "get-fab"),
            *("pull-messages", "push-messages", "pull-object", "push-object"),
            "confirm-message-received",
        )
    }
    assert all(status in {400, 401, 422} for path, status, _ in answers if path in passed)
    # To submit a run, to register a key, to read runs, to take a ServerApp's task.
    assert {
        "/v1/control/start-run",
        "/v1/control/register-node",
        "/v1/control/list-runs",
        "/v1/runtime/acquire-task",
        "/v1/runtime/pull-messages",
    } <= refused


def addresses(stack: Stack, service: str) -> list[str]:
    """IP addresses of a service's container."""
    (container,) = stack.containers(service)
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    return subprocess.run(
        ["docker", "inspect", "--format", template, container],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()


def test_past_the_fleets_address_a_site_reaches_nothing(stack: Stack) -> None:
    places = [("server", 8000), ("enrolment", 8003), ("trainer", 9091)]
    places += [(ip, 8000) for ip in addresses(stack, "server")]
    places += [(ip, 8003) for ip in addresses(stack, "enrolment")]
    reached = json.loads(in_client(stack, REACH, json.dumps([*places, ("fleet", 8443)])))
    assert reached.pop("fleet:8443") == "reached"
    assert "reached" not in reached.values()
    # Their names are not even known there.
    assert reached["server:8000"] == reached["enrolment:8003"] == "gaierror"


def test_sites_are_spoken_to_in_tls_alone_and_verify_it(stack: Stack) -> None:
    said = json.loads(in_client(stack, SPEAK))
    for host in ("fleet", "dealer"):
        assert not said[host].startswith("HTTP")
        assert said[f"{host} to strangers"] == "SSLCertVerificationError"
        assert said[f"{host} to sites"] == "TLSv1.3"


def files(project: str = PROJECT) -> dict[str, str]:
    """Content of all that provision made, by file."""
    mounts = [f"--volume={project}_{name}:/v/{name}:ro" for name in VOLUMES]
    listed = subprocess.run(
        [
            *("docker", "run", "--rm", "--network", "none", *mounts, "cloister/provision"),
            # One may end without a line's end.
            *(
                "sh",
                "-c",
                r"cd /v && find . -type f -exec printf '\n== %s\n' {} \; -exec cat {} \;",
            ),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    parts = re.split(r"^== \./(.*)\n", listed, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def secrets(stack: Stack) -> list[str]:
    """Every secret of the federation, each in a form in which it would be seen."""
    made = files()
    keys = [text for text in made.values() if "PRIVATE KEY" in text]
    keys += [
        stack.execute(container, "cat", "/data/node.key")
        for container in stack.containers("client")
    ]
    # The second line of a key is part of no certificate.
    found = [key[key.index("PRIVATE KEY-----") :].splitlines()[2] for key in keys]
    found += [made["control/superexec.secret"].strip(), made["join/join.token"].strip()]
    assert len(found) >= 6 + CLIENTS + 2
    assert all(len(secret) >= 24 for secret in found)
    return found


def test_a_secret_is_in_its_file_alone(stack: Stack) -> None:
    containers = stack.compose("ps", "--all", "--quiet").split()
    images = [image["image"] for image in stack.config()["services"].values()]
    inspected = subprocess.run(
        ["docker", "inspect", *containers, *set(images)], capture_output=True, text=True, check=True
    ).stdout
    environments = [
        stack.execute(container, "sh", "-c", "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline")
        for container in stack.compose("ps", "--quiet").split()
    ]
    places = {
        "inspect": inspected,
        "environments": "".join(environments),
        "config": json.dumps(stack.config()),
        "logs": stack.compose("logs", "--no-color"),
    }
    for secret in secrets(stack):
        assert [where for where, text in places.items() if secret in text] == []
    # Nor does an image bring one: each federation makes its own.
    for image in ("provision", "server", "client", "fleet", "enrolment", "dealer", "trainer"):
        found = subprocess.run(
            [
                *("docker", "run", "--rm", "--network", "none", "--entrypoint", "find"),
                *(f"cloister/{image}", "/cloister", "/federation", "/data", "/enrolment"),
                *("(", "-name", "*.key", "-o", "-name", "*.secret", "-o", "-name", "*.token", ")"),
            ],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        assert found == ""


def test_what_is_secret_is_read_by_its_owner_alone(stack: Stack) -> None:
    (client, *_) = stack.containers("client")
    (server,) = stack.containers("server")
    (fleet,) = stack.containers("fleet")
    for container, path in (
        (client, "/join/join.token"),
        (client, "/data/node.key"),
        (server, "/control/superexec.secret"),
        (server, "/server-tls/tls.key"),
        (fleet, "/fleet-tls/tls.pem"),
    ):
        assert stack.execute(container, "stat", "-c", "%a %U", path).split() == ["600", "cloister"]


def test_scaling_up_enrols_the_new_sites_and_leaves_the_others_as_they_are(stack: Stack) -> None:
    before, made = enrolled(stack), files()
    stack.compose("up", "--detach", "--scale", f"client={CLIENTS + 2}", "client")
    stack.until(lambda: len(enrolled(stack)) == CLIENTS + 2, "enrolment of 2 more sites")
    assert before.items() <= enrolled(stack).items()
    after = files()
    # A further `up` made nothing anew. What enrolment writes is its own.
    for path in made:
        if not path.startswith("enrolment/"):
            # Without the contents: they are secret.
            assert (path, made[path] == after[path]) == (path, True)
    assert after.keys() == made.keys()


def test_a_revoked_site_is_refused_and_its_log_says_why(stack: Stack) -> None:
    container = stack.containers("client")[-1]
    name = stack.execute(container, "hostname").strip()
    sites(stack, "revoke", name)
    assert name not in enrolled(stack)
    stack.until(
        lambda: "enrolment refuses this site: this site's key was revoked" in log_of(container),
        "the reason in the revoked site's log",
        seconds=180,
    )
    assert name in stack.logs("enrolment")
    assert re.search(rf"{name}\s+revoked", sites(stack, "list"))
    # Nobody else is the worse for it.
    assert len(enrolled(stack)) == CLIENTS + 1
    subprocess.run(["docker", "rm", "--force", "--volumes", container], check=True)


def log_of(container: str) -> str:
    done = subprocess.run(
        ["docker", "logs", container],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    return done.stdout


def test_an_unknown_key_is_refused_by_the_superlink(stack: Stack) -> None:
    status, _, reason = in_client(stack, UNKNOWN_NODE).partition(" ")
    assert int(status) in {401, 403, 412}
    assert reason
    assert '"path":"\\/v1\\/fleet\\/activate-node","status":' + status in stack.logs("fleet")


def test_without_a_token_of_this_federation_nobody_enrols_and_its_log_says_why(
    stack: Stack, tmp_path: Path
) -> None:
    token = reachable(tmp_path) / "join.token"
    token.write_text("cloister_join_" + "0" * 64)
    token.chmod(0o644)
    before = register(stack)
    mount = f"--volume={token}:/join/join.token:ro"
    site = stack.compose("run", "--detach", "--no-deps", mount, "client").strip()
    try:
        stack.until(lambda: "this join token is not known here" in log_of(site), "the reason")
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", site], check=True)
    assert register(stack) == before
    assert "refused an attempt with a join token that is not known" in stack.logs("enrolment")


def test_a_certificate_of_ones_own_takes_the_place_of_that_which_sites_elsewhere_see(
    stack: Stack, own: tuple[Path, Path]
) -> None:
    certificate, key = own
    before = files()
    settings(
        stack,
        tls_certificate_file=certificate,
        tls_key_file=key,
        tls_ca_file=certificate,
    )
    stack.compose("up", "--detach", "--no-deps", "--force-recreate", "provision")
    assert stack.exit_code("provision") == 0, stack.logs("provision")
    stack.compose("restart", "fleet")
    stack.compose("up", "--detach", "--no-deps", "--wait", "fleet")
    after = files()
    assert certificate.read_text() in after["fleet-tls/tls.pem"]
    assert certificate.read_text() in after["trust/ca.crt"]
    assert before["trust/ca.crt"].strip() in after["trust/ca.crt"]
    changed = {path for path in after if after[path] != before[path]}
    assert changed == {"fleet-tls/tls.pem", "trust/ca.crt"}
    # Who knows the own CA alone reaches it, and the sites of this machine still do as before.
    trust = ssl.create_default_context(cafile=str(certificate))
    url = f"https://{address()}:{FEDERATION_PORT}/enrolment/health"
    stack.until(lambda: answers(url, trust), "an answer under the own certificate")
    assert json.loads(in_client(stack, SPEAK))["fleet to sites"] == "TLSv1.3"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of one's own, its own CA, and its key."""
    folder = reachable(tmp_path_factory.mktemp("own"))
    return self_signed(folder, "own", f"IP:{address()}", "DNS:sites.example")


def answers(url: str, trust: ssl.SSLContext) -> bool:
    try:
        return httpx.get(url, verify=trust).is_success
    except httpx.TransportError:
        return False


@pytest.fixture
def elsewhere(
    stack: Stack, own: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A site's own project: its rows as CSV, and what it was given."""
    folder = reachable(tmp_path_factory.mktemp("site"))
    rows = folder / "rows"
    rows.mkdir()
    digits = schema("digits")
    (rows / "schema.json").write_text(digits.model_dump_json())
    features, labels = load_digits(return_X_y=True)
    header = ",".join([*(feature.name for feature in digits.features), "label"])
    table = np.column_stack([features, labels])[:300]
    np.savetxt(rows / "digits.csv", table, fmt="%d", delimiter=",", header=header, comments="")
    token = folder / "join.token"
    token.write_text(sites(stack, "invite", "hospital-a"))
    token.chmod(0o644)

    site = Stack("cloister-test-site", "docker/site.compose.yaml")
    site.settings(
        superlink=f"{address()}:{FEDERATION_PORT}",
        site_name="hospital-a",
        site_folder=rows,
        site_ca=own[0],
        site_token=token,
    )
    yield site
    site.compose("down", "--volumes", "--timeout", "10")


def test_a_site_elsewhere_trains_with_the_others(stack: Stack, elsewhere: Stack) -> None:
    stack.compose("up", "--detach", "--no-deps", "--no-recreate", "--scale", "client=2", "client")
    check = elsewhere.compose("run", "--rm", "client", "python", "-m", "cloister_client", "check")
    assert "300 rows" in check
    elsewhere.compose("up", "--detach", "--wait")
    assert "hospital-a" in enrolled(stack)
    (container,) = elsewhere.containers("client")
    assert networks([container]) == {"cloister-test-site_outside"}
    assert "cloister-test-site_outside" not in networks(stack.compose("ps", "--quiet").split())
    # It reaches the published port and nothing behind it.
    places = [(ip, 8000) for ip in addresses(stack, "server")]
    places.append((address(), FEDERATION_PORT))
    reached = json.loads(elsewhere.execute(container, "python", "-c", REACH, json.dumps(places)))
    assert [place for place, how in reached.items() if how == "reached"] == [
        f"{address()}:{FEDERATION_PORT}"
    ]

    stack.compose("up", "--detach", "--no-deps", "trainer")
    assert stack.exit_code("trainer") == 0, stack.logs("trainer")
    log = stack.logs("trainer")
    assert re.search(r"round 2.*\b3 sites", log), log
    assert "published version 1 of digits" in log
    with pytest.raises(subprocess.CalledProcessError):
        elsewhere.execute(container, "touch", "/site/x")
    assert "Traceback" not in elsewhere.logs("client")


def networks(containers: list[str]) -> set[str]:
    template = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}"
    return set(
        subprocess.run(
            ["docker", "inspect", "--format", template, *containers],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
    )
