"""The whole way in containers on digits, and what happens to it in a day: in file order."""

import re
import subprocess
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from sklearn.datasets import load_digits
from stack import CONSOLE_PORT, Stack

from cloister_keyholder import EncryptedModel
from cloister_shared.open_inference import CLIENT_DIGEST


@pytest.fixture(scope="module", autouse=True)
def _digits(stack: Stack) -> None:
    stack.settings(evaluate_samples=100, clients=4)


def shards_held(stack: Stack) -> dict[str, str]:
    """SHA-256 of the shard that each running client has, by container."""
    return {
        container: stack.execute(container, "sha256sum", "/data/shard.npz").split()[0]
        for container in stack.containers("client")
        if stack.execute(container, "sh", "-c", "ls /data").find("shard.npz") >= 0
    }


def all_hold_different_shards(stack: Stack, n_clients: int) -> bool:
    held = shards_held(stack)
    twice = {shard for shard in held.values() if list(held.values()).count(shard) > 1}
    # A shard may have been handed over while one client was asked after the other.
    if twice and twice & set(shards_held(stack).values()):
        assert list(shards_held(stack).values()).count(min(twice)) < 2, "a shard is held twice"
    return len(held) == n_clients and not twice


def test_up_trains_compiles_serves_and_evaluates(stack: Stack) -> None:
    stack.compose("up", "--detach", "--scale", "client=4")
    assert stack.exit_code("keyholder") == 0, stack.logs("keyholder")
    report = stack.report()
    print(report)
    assert report["evaluated"] == 100
    assert report["encrypted_score"] >= 0.9
    assert report["agreement"] == {"samples": 100, "equal_scores": 100, "equal_predictions": 100}
    assert stack.versions("digits") == ["1"]


def test_every_site_took_part(stack: Stack) -> None:
    rounds = re.findall(r"round (\d) of 5: (\d) sites, (loss)", stack.logs("trainer"))
    # A site that fails would be told of before the loss.
    assert rounds == [(number, "4", "loss") for number in "12345"]
    assert all_hold_different_shards(stack, 4)


def test_the_console_shows_the_training_and_its_page_may_query_the_service(stack: Stack) -> None:
    page = f"http://127.0.0.1:{CONSOLE_PORT}"
    for path in ("/", "/client/dist/lwe.wasm", "/uplot/uPlot.esm.js"):
        httpx.get(f"{page}{path}").raise_for_status()
    (training,) = httpx.get(f"{page}/api/trainings").raise_for_status().json()
    assert (training["model"], training["state"], training["round"]) == ("digits", "published", 5)
    # It reads what the trainer writes, and cannot write there.
    (container,) = stack.containers("console")
    with pytest.raises(subprocess.CalledProcessError):
        stack.execute(container, "touch", "/events/new")
    allowed = httpx.options(
        f"{stack.url}/v2/models/digits/infer",
        headers={"Origin": page, "Access-Control-Request-Method": "POST"},
    )
    assert allowed.headers["access-control-allow-origin"] == page


def test_containers_run_as_nobody_in_particular_and_cannot_reach_out(stack: Stack) -> None:
    for service in ("dealer", "client", "server", "inference", "gateway", "console"):
        for container in stack.containers(service):
            assert stack.execute(container, "id", "-u").strip() == "10001"
    user = ["run", "--rm", "--no-deps", "--entrypoint"]
    for service in ("trainer", "compiler", "keyholder"):
        assert stack.compose(*user, "id", service, "-u").strip() == "10001"

    routes = [
        stack.execute(container, "cat", "/proc/net/route")
        for service in ("client", "server", "inference")
        for container in stack.containers(service)
    ]
    routes += [
        stack.compose(*user, "cat", service, "/proc/net/route")
        for service in ("trainer", "compiler", "keyholder")
    ]
    for table in routes:
        lines = table.splitlines()[1:]
        assert all(line.split()[1] != "00000000" for line in lines), "a default route"


def test_no_secret_is_in_an_image_or_a_log(stack: Stack) -> None:
    (server,) = stack.containers("server")
    secret = stack.execute(server, "cat", "/control/superexec.secret").strip()
    assert len(secret) == 64
    assert stack.execute(server, "stat", "-c", "%a", "/control/superexec.secret").strip() == "600"
    assert secret not in stack.compose("logs")
    inspected = subprocess.run(
        ["docker", "inspect", *stack.containers("server"), *stack.containers("client")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert secret not in inspected


def test_bad_input_is_refused_at_once_and_good_input_still_answered(
    stack: Stack, tmp_path: Path
) -> None:
    features, _ = load_digits(return_X_y=True)
    with EncryptedModel(stack.url, "digits") as model:
        query = model.encrypt(model.quantise(features[:1])[0])
        headers, url, good = model.infer_headers, model.infer_url, query.ciphertext
        mutated = bytearray(good)
        mutated[10:12] = b"\xff\x7f"
        bad = {
            "random bytes": np.random.default_rng(0).bytes(len(good)),
            "truncated": good[:-100],
            "trailing bytes": good + bytes(8),
            "hanging header mutation": bytes(mutated),
            "empty": b"",
        }
        for what, body in bad.items():
            start = time.monotonic()
            response = httpx.post(url, content=body, headers=headers, timeout=10)
            assert 400 <= response.status_code < 500, what
            assert response.headers["content-type"] == "application/problem+json", what
            assert time.monotonic() - start < 1, what
        stale = headers | {CLIENT_DIGEST: "0" * 64}
        assert httpx.post(url, content=good, headers=stale).status_code == 409

        large = tmp_path / "large"
        with large.open("wb") as stream:
            stream.truncate(1 << 30)
        start = time.monotonic()
        refused = subprocess.run(
            ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}"]
            + [part for k, v in headers.items() for part in ("--header", f"{k}: {v}")]
            + ["--upload-file", str(large), "--request", "POST", url],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert refused.stdout == "413"
        assert time.monotonic() - start < 1

        answered = httpx.post(url, content=good, headers=headers).raise_for_status()
        reference = model.reference()
        assert reference is not None
        clear = reference.integer_scores(model.quantise(features[:1]))[0]
        assert np.array_equal(query.decrypt(answered.content), clear)


def test_a_second_up_does_no_work_twice(stack: Stack) -> None:
    stack.compose("up", "--detach", "--scale", "client=4")
    assert stack.exit_code("keyholder") == 0
    assert "version 1 of digits is trained already" in stack.logs("trainer")
    assert "version 1 of digits is compiled already" in stack.logs("compiler")
    assert stack.versions("digits") == ["1"]


def test_the_trainer_sees_a_digest_of_the_deal_and_no_key(stack: Stack) -> None:
    seen = stack.compose("run", "--rm", "--no-deps", "--entrypoint", "ls", "trainer", "-A", "/deal")
    assert seen.split() == ["digest"]


def test_restarting_gateway_and_inference_does_not_end_an_evaluation(stack: Stack) -> None:
    # Concrete's client alone takes long enough to be interrupted.
    slowly = ["CLIENT=concrete", "PROCESSES=1", "CONNECTIONS=1", "BATCH=1"]
    options = [part for each in slowly for part in ("--env", f"CLOISTER_{each}")]
    evaluation = stack.start(
        "run", "--rm", "--no-deps", *options, "keyholder", "evaluate", "--samples", "0"
    )
    assert evaluation.stdout is not None
    output = []
    for line in evaluation.stdout:
        output.append(line)
        if re.search(r"\b\d+ of 360", line):
            break
    for service in ("gateway", "inference"):
        stack.compose("restart", "--timeout", "10", service)
    output += evaluation.stdout.readlines()
    assert evaluation.wait() == 0, "".join(output)
    assert "again" in "".join(output), "nothing was asked while the service was away"
    assert stack.report()["agreement"]["equal_scores"] == 360


def test_a_key_holder_without_concrete_is_small_and_evaluates_the_same(stack: Stack) -> None:
    stack.settings(evaluate_samples=100, clients=4, keyholder_image="keyholder-native")
    stack.compose("build", "keyholder")
    stack.compose("run", "--rm", "--no-deps", "keyholder", "evaluate", "--samples", "0")
    report = stack.report()
    assert report["client"] == "native"
    assert report["agreement"]["equal_scores"] == report["evaluated"] == 360
    assert report["bytes_up"] < 400
    size, base = (
        int(subprocess.check_output(["docker", "image", "inspect", "-f", "{{.Size}}", image]))
        for image in ("cloister/keyholder-native", "python:3.11-slim-bookworm")
    )
    assert size - base <= 120e6
    stack.settings(evaluate_samples=100, clients=4)


def test_down_and_up_loses_nothing(stack: Stack) -> None:
    stack.compose("down")
    stack.compose("up", "--detach", "--scale", "client=4", "client", "gateway")
    stack.until(lambda: all_hold_different_shards(stack, 4), "a shard for each of 4 clients")
    assert stack.versions("digits") == ["1"]


def test_scaling_down_and_up_never_shares_a_shard(stack: Stack) -> None:
    for n_clients in (2, 5):
        stack.compose("up", "--detach", "--no-recreate", "--scale", f"client={n_clients}", "client")
        stack.until(
            lambda n=n_clients: all_hold_different_shards(stack, n),  # type: ignore[misc]
            f"a shard for each of {n_clients} clients",
        )


def test_a_client_killed_mid_round_does_not_end_the_training(stack: Stack) -> None:
    stack.settings(retrain="true", clients=4, min_replies=3)
    stack.compose("up", "--detach", "--scale", "client=4", "client", "server")
    stack.until(lambda: len(stack.containers("client")) == 4, "4 clients")
    stack.compose("create", "--no-recreate", "trainer")
    training = stack.start("up", "--no-deps", "--scale", "client=4", "trainer")
    stack.until(lambda: "round 1 of 5: 4 sites" in stack.logs("trainer"), "round 2")
    subprocess.run(["docker", "kill", stack.containers("client")[0]], check=True)
    training.communicate(timeout=600)
    assert stack.exit_code("trainer") == 0, stack.logs("trainer")
    log = stack.logs("trainer")
    # In the round that it was killed in, or in the next if it had replied.
    assert re.search(r"round [23] of 5: 3 sites, 1 failed", log), log
    assert "published version 2 of digits" in log


def test_a_rollback_is_one_command_and_stays(stack: Stack) -> None:
    stack.settings(evaluate_samples=100, clients=4)
    stack.compose("up", "--detach", "--scale", "client=4", "gateway")
    stack.until(lambda: serving(stack) == "2", "version 2 to serve")
    stack.compose("run", "--rm", "--no-deps", "compiler", "rollback", "digits")
    stack.until(lambda: serving(stack) == "1", "version 1 to serve again")
    stack.compose("up", "--detach", "--force-recreate", "--no-deps", "compiler")
    assert stack.exit_code("compiler") == 0
    assert "version 1 stays in use (rolled back from 2)" in stack.logs("compiler")
    assert serving(stack) == "1"
    metadata = httpx.get(f"{stack.url}/v2/models/digits/versions/2").raise_for_status().json()
    assert metadata["parameters"]["evaluator"] == "native"


def serving(stack: Stack) -> str | None:
    """The version that serves whoever names none; None while the gateway starts."""
    try:
        answer = httpx.get(f"{stack.url}/v2/models/digits")
    except httpx.TransportError:
        return None
    return answer.json()["parameters"]["version"] if answer.is_success else None
