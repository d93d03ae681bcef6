"""Versions that are deleted from the registry while a service has them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_service import Gate, serving, until

from cloister_inference.app import create_app
from cloister_inference.options import Options
from cloister_shared.registry import Registry

FIRST = "/v2/models/digits/versions/1"
RAW = {"Content-Type": "application/octet-stream"}


def test_one_that_evaluates_ends_its_work_and_is_not_found_from_then_on(
    own_artifacts: Path,
    republish: Any,
    monkeypatch: pytest.MonkeyPatch,
    protocol: Any,
    digits: Any,
    digits_rows: np.ndarray[Any, Any],
    digits_payload: bytes,
) -> None:
    republish("digits")
    registry, gate = Registry(own_artifacts), Gate()
    gate.hold(monkeypatch)
    app = create_app(registry, Options(threads=1, max_batch=1, poll_seconds=0.02))
    with serving(app) as client, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.post, f"{FIRST}/infer", content=digits_payload, headers=RAW)
        gate.wait_entered(1)
        registry.delete("digits", 1)
        until(lambda: client.get(FIRST).status_code == 404)
        gate.open()
        answer = asked.result(60)
        assert answer.status_code == 200
        assert digits.decrypt(answer.content) == digits.expected(digits_rows[0])

        refused = client.post(f"{FIRST}/infer", content=digits_payload, headers=RAW)
        assert protocol.problem(refused) == (404, "there is no version 1 of digits")
        assert client.get("/v2/models/digits").json()["versions"] == ["2"]
        assert client.get(f"{FIRST}/client").status_code == 404

        registry.delete_all("digits")
        until(lambda: client.get("/v2/models/digits").status_code == 404)
        index = client.post("/v2/repository/index").json()
        assert [entry["name"] for entry in index] == ["breast_cancer"]
        assert client.get("/v2/health/ready").status_code == 200
