"""Several replicas of inference behind one address, and what the gateway itself answers."""

import hashlib
import json
import re
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from certificate import self_signed
from load import Load, Prepared, prepare
from sklearn.datasets import load_digits
from stack import Stack

from cloister_keyholder import EncryptedModel

RATE = 50
"""Queries a second: less than one replica can answer on two cores."""
SETTLE_SECONDS = 3.0
"""How long the load goes on before and after what happens under it."""
PROBLEM = "application/problem+json"
LARGE_BYTES = 60 << 20
BODY_BYTES = 300 << 20


@pytest.fixture(scope="module", autouse=True)
def _serving(stack: Stack) -> None:
    stack.settings(clients=4)
    stack.compose("up", "--detach", "gateway")
    scale(stack, 1)
    stack.until(lambda: len(used(stack)) == 1, "one replica in use")


@pytest.fixture(scope="module")
def model(stack: Stack, _serving: None) -> Iterator[EncryptedModel]:
    with EncryptedModel(stack.url, "digits") as model:
        yield model


@pytest.fixture(scope="module")
def queries(model: EncryptedModel) -> list[Prepared]:
    return prepare(model, load_digits().data[:20])


def scale(stack: Stack, replicas: int) -> None:
    """Have so many replicas of inference; those that run stay as they are."""
    stack.compose(
        *("up", "--detach", "--no-deps", "--no-recreate", "--wait"),
        *("--scale", f"inference={replicas}", "inference"),
    )


def metrics(stack: Stack, name: str, *labels: str) -> dict[str, float]:
    """Values of one of the gateway's metrics with these labels, by replica."""
    (gateway,) = stack.containers("gateway")
    url = "http://127.0.0.1:8002/metrics"
    code = f"import urllib.request as u; print(u.urlopen('{url}').read().decode())"
    text = stack.execute(gateway, "python", "-c", code)
    return {
        match[1]: float(match[2])
        for line in text.splitlines()
        if all(label in line for label in labels)
        and (match := re.fullmatch(rf'{name}{{.*server="(\w+)".*}} (\S+)', line)) is not None
    }


def used(stack: Stack) -> set[str]:
    """The replicas that the gateway gives requests to."""
    states = metrics(stack, "haproxy_server_status", 'proxy="inference"', 'state="UP"')
    return {replica for replica, up in states.items() if up}


def answered(stack: Stack) -> dict[str, float]:
    """Successful answers by replica, since the gateway started."""
    return metrics(stack, "haproxy_server_http_responses_total", 'proxy="inference"', 'code="2xx"')


def in_use(stack: Stack, replicas: int) -> None:
    stack.until(lambda: len(used(stack)) == replicas, f"{replicas} replicas in use")


def load(model: EncryptedModel, queries: list[Prepared]) -> Load:
    return Load(model.infer_url, model.infer_headers, queries, RATE)


def all_right(what: str, sent: Load) -> None:
    slowest = max(outcome.seconds for outcome in sent.outcomes())
    print(f"{what}: {dict(sent.counts())}, slowest {1000 * slowest:.0f} ms")
    assert set(sent.counts()) == {"right"}


def test_three_replicas_behind_one_address_share_the_requests(
    stack: Stack, model: EncryptedModel, queries: list[Prepared]
) -> None:
    scale(stack, 3)
    in_use(stack, 3)
    before = answered(stack)
    with load(model, queries) as sent:
        time.sleep(2 * SETTLE_SECONDS)
    all_right("three replicas", sent)
    after = answered(stack)
    shares = [after[replica] - before.get(replica, 0.0) for replica in used(stack)]
    total = sum(shares)
    assert total >= len(sent.outcomes())
    assert len(shares) == 3
    assert min(shares) > total / 10


def test_scaling_up_and_down_under_load_loses_no_request(
    stack: Stack, model: EncryptedModel, queries: list[Prepared]
) -> None:
    scale(stack, 1)
    in_use(stack, 1)
    with load(model, queries) as sent:
        time.sleep(SETTLE_SECONDS)
        scale(stack, 3)
        in_use(stack, 3)
        time.sleep(SETTLE_SECONDS)
        scale(stack, 1)
        time.sleep(SETTLE_SECONDS)
    all_right("scaling 1, 3, 1", sent)


def test_a_replica_killed_under_load_loses_no_request(
    stack: Stack, model: EncryptedModel, queries: list[Prepared]
) -> None:
    scale(stack, 3)
    in_use(stack, 3)
    with load(model, queries) as sent:
        time.sleep(SETTLE_SECONDS)
        subprocess.run(["docker", "kill", stack.containers("inference")[0]], check=True)
        time.sleep(SETTLE_SECONDS)
    all_right("one replica killed", sent)


def test_a_replica_restarted_under_load_loses_no_request(
    stack: Stack, model: EncryptedModel, queries: list[Prepared]
) -> None:
    scale(stack, 3)
    in_use(stack, 3)
    with load(model, queries) as sent:
        time.sleep(SETTLE_SECONDS)
        replica = stack.containers("inference")[0]
        subprocess.run(["docker", "restart", "--timeout", "20", replica], check=True)
        in_use(stack, 3)
        time.sleep(SETTLE_SECONDS)
    all_right("one replica restarted", sent)


def test_the_only_replica_restarted_under_load_loses_no_request(
    stack: Stack, model: EncryptedModel, queries: list[Prepared]
) -> None:
    scale(stack, 1)
    in_use(stack, 1)
    with load(model, queries) as sent:
        time.sleep(SETTLE_SECONDS)
        (replica,) = stack.containers("inference")
        subprocess.run(["docker", "restart", "--timeout", "20", replica], check=True)
        in_use(stack, 1)
        time.sleep(SETTLE_SECONDS)
    all_right("the only replica restarted", sent)


def check_problem(response: httpx.Response, status: int) -> None:
    assert response.status_code == status
    assert response.headers["content-type"] == PROBLEM
    problem = response.json()
    assert problem["status"] == status
    assert problem["detail"] == problem["error"] != ""
    assert "server" not in response.headers
    assert response.headers["x-request-id"]


def test_a_body_that_does_not_state_its_length_is_refused(stack: Stack) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"{}"

    # The service itself takes any body there.
    check_problem(httpx.post(f"{stack.url}/v2/repository/index", content=chunks()), 411)


def curl(url: str, path: Path) -> tuple[int, str]:
    """Upload a file, reading while sending as httpx does not; returns status and media type."""
    done = subprocess.run(
        [
            *("curl", "--silent", "--output", "/dev/null"),
            *("--write-out", "%{http_code} %{content_type}", "--upload-file", str(path), url),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    status, _, media_type = done.stdout.partition(" ")
    return int(status), media_type


def test_a_body_above_the_limit_is_refused_by_the_gateway(stack: Stack, tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as stream:
        stream.truncate(BODY_BYTES + 1)
    # The service itself takes no uploads there, of whatever size.
    assert curl(f"{stack.url}/v2", large) == (413, PROBLEM)


def test_a_large_upload_reaches_the_service_and_not_the_gateways_memory(
    stack: Stack, tmp_path: Path
) -> None:
    (gateway,) = stack.containers("gateway")
    content = bytes(LARGE_BYTES)
    path = tmp_path / "key"
    path.write_bytes(content)
    url = f"{stack.url}/v2/keys/{hashlib.sha256(content).hexdigest()}"
    status, media_type = curl(url, path)
    # It is no key, which is for the service to say.
    assert status in {400, 401, 404, 405, 413, 415, 422}
    assert media_type == PROBLEM
    (used_bytes,) = re.findall(
        r"VmHWM:\s+(\d+) kB", stack.execute(gateway, "sh", "-c", "cat /proc/[0-9]*/status")
    )[-1:]
    assert int(used_bytes) << 10 < LARGE_BYTES


def test_request_ids_are_kept_or_made(stack: Stack) -> None:
    url = f"{stack.url}/v2"
    assert httpx.get(url, headers={"X-Request-Id": "a b~1"}).headers["x-request-id"] == "a b~1"
    made = {
        httpx.get(url, headers=headers).headers["x-request-id"]
        for headers in ([], [("X-Request-Id", "a" * 129)], [("X-Request-Id", "a")] * 2)
    }
    assert len(made) == 3
    assert all(re.fullmatch(r"[0-9a-f-]{36}", request_id) for request_id in made)


def test_without_a_replica_the_gateway_says_so(stack: Stack) -> None:
    health = f"{stack.url}/gateway/health"
    assert httpx.get(health).json() == {"ready": True}
    scale(stack, 0)
    stack.until(lambda: not used(stack), "no replica in use")
    for path in ("/v2/health/ready", "/gateway/health"):
        # It waits a while for one to come.
        response = httpx.get(stack.url + path, timeout=60)
        check_problem(response, 503)
        assert int(response.headers["retry-after"]) > 0
    scale(stack, 1)
    stack.until(lambda: httpx.get(health).is_success, "a replica in use")


def test_with_a_certificate_the_published_port_speaks_https_alone(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = self_signed(tmp_path, "gateway", "IP:127.0.0.1")
    pem = tmp_path / "pem"
    pem.write_bytes(certificate.read_bytes() + key.read_bytes())
    pem.chmod(0o644)
    monkeypatch.setenv("GATEWAY_TLS_PEM", str(pem))
    stack.compose("up", "--detach", "--no-deps", "--wait", "gateway")
    try:
        verify = ssl.create_default_context(cafile=str(certificate))
        secure = stack.url.replace("http:", "https:")
        assert httpx.get(f"{secure}/v2/health/ready", verify=verify).json()["ready"]
        # Key holders on the gateway's own network need no certificate.
        (gateway,) = stack.containers("gateway")
        code = "import urllib.request as u; print(u.urlopen('http://gateway:8000/v2').status)"
        assert stack.execute(gateway, "python", "-c", code).strip() == "200"
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"{stack.url}/v2")
    finally:
        monkeypatch.delenv("GATEWAY_TLS_PEM")
        stack.compose("up", "--detach", "--no-deps", "--wait", "gateway")


def test_the_log_has_no_payload_and_no_credentials(
    stack: Stack, model: EncryptedModel, queries: list[Prepared]
) -> None:
    headers = model.infer_headers | {"Authorization": "Bearer a-secret-token"}
    httpx.post(
        f"{model.infer_url}?token=another-secret",
        content=queries[0].ciphertext,
        headers=headers,
    ).raise_for_status()
    log = stack.logs("gateway")
    last = [
        json.loads(line[line.index("{") :]) for line in log.splitlines() if '"request_id"' in line
    ][-1]
    assert last["path"].endswith("/infer")
    assert last["status"] == 200
    assert last["replica"] == "inference1"
    assert last["bytes_down"] > len(queries[0].answer)
    assert "secret" not in log
