"""Whatever is wrong with a request is answered as a problem, and the next good one succeeds."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloister_shared.open_inference import HEADER_LENGTH, encode_elements

OTHER_DIGEST = "0" * 64


@pytest.fixture
def next_good_request_succeeds(
    service: TestClient, digits: Any, protocol: Any, digits_payload: bytes, digits_rows: Any
) -> Callable[[], None]:
    def check() -> None:
        response = protocol.raw(service, "digits", digits_payload, digits.digest)
        assert response.status_code == 200
        assert digits.decrypt(response.content) == digits.expected(digits_rows[0])

    return check


def corrupt_segment_size(payload: bytes) -> bytes:
    """Bytes 10 and 11 belong to the size of a Cap'n Proto segment: deserialising would hang."""
    return payload[:10] + bytes(byte ^ 0xFF for byte in payload[10:12]) + payload[12:]


@pytest.mark.parametrize(
    "mutate",
    [
        pytest.param(lambda payload: np.random.default_rng(1).bytes(len(payload)), id="random"),
        pytest.param(lambda _payload: b"", id="empty"),
        pytest.param(lambda payload: payload[:-1], id="one byte short"),
        pytest.param(lambda payload: payload[:64], id="framing alone"),
        pytest.param(lambda payload: payload + b"\0", id="one byte more"),
        pytest.param(lambda payload: payload + bytes(4096), id="trailing bytes"),
        pytest.param(lambda payload: payload * 2, id="twice"),
        pytest.param(corrupt_segment_size, id="segment size"),
    ],
)
def test_a_ciphertext_of_another_form_is_refused(
    service: TestClient,
    digits: Any,
    protocol: Any,
    digits_payload: bytes,
    mutate: Callable[[bytes], bytes],
    next_good_request_succeeds: Callable[[], None],
) -> None:
    bad = mutate(digits_payload)
    raw = protocol.raw(service, "digits", bad, digits.digest)
    assert protocol.problem(raw)[0] == 400
    assert "element 0" in protocol.problem(raw)[1]
    # In a batch the answer says which one it was.
    elements = [digits_payload, bad]
    framed = protocol.framed(
        service, "digits/versions/1", protocol.header(elements), encode_elements(elements)
    )
    assert protocol.problem(framed)[0] == 400
    assert "element 1" in protocol.problem(framed)[1]
    next_good_request_succeeds()


def test_another_models_ciphertext_is_refused(
    service: TestClient,
    breast_cancer: Any,
    protocol: Any,
    digits_rows: Any,
    next_good_request_succeeds: Callable[[], None],
) -> None:
    payload = breast_cancer.encrypt(digits_rows[0][:30])
    response = protocol.raw(service, "digits/versions/1", payload)
    assert protocol.problem(response)[0] == 400
    next_good_request_succeeds()


def test_every_fixed_byte_is_checked(
    service: TestClient,
    digits: Any,
    protocol: Any,
    digits_payload: bytes,
    next_good_request_succeeds: Callable[[], None],
) -> None:
    metadata = service.get("/v2/models/digits").json()["parameters"]
    data = range(64, 64 + 24 * len(digits.reference.features))
    fixed = [index for index in range(metadata["input_bytes"]) if index not in data]
    # All of the framing, and a sample of what follows the ciphertexts.
    rest = np.random.default_rng(2).permutation(fixed[64:])[:60]
    sample = [*fixed[:64], *rest, fixed[64], fixed[-1]]
    for index in sample:
        mutated = bytearray(digits_payload)
        mutated[index] ^= 1 << (index % 8)
        response = protocol.raw(service, "digits", bytes(mutated), digits.digest)
        assert protocol.problem(response)[0] == 400, index
    next_good_request_succeeds()


def test_the_bytes_of_ciphertexts_are_free(
    service: TestClient, digits: Any, protocol: Any, digits_payload: bytes
) -> None:
    """Any seed and body is a ciphertext; what it decrypts to is the sender's affair."""
    mutated = bytearray(digits_payload)
    mutated[64] ^= 1
    mutated[64 + 24 * len(digits.reference.features) - 1] ^= 0x80
    response = protocol.raw(service, "digits", bytes(mutated), digits.digest)
    assert response.status_code == 200


class TestClientDigest:
    @pytest.mark.parametrize("model", ["digits", "digits/versions/1"])
    def test_another_one_is_a_conflict(
        self, service: TestClient, protocol: Any, digits_payload: bytes, model: str
    ) -> None:
        raw = protocol.raw(service, model, digits_payload, OTHER_DIGEST)
        assert protocol.problem(raw)[0] == 409
        assert "/v2/models/digits/versions/1/client" in raw.json()["detail"]
        elements = [digits_payload]
        header = protocol.header(elements, parameters={"client_digest": OTHER_DIGEST})
        framed = protocol.framed(service, model, header, encode_elements(elements))
        assert protocol.problem(framed)[0] == 409

    def test_without_one_the_version_must_be_stated(
        self, service: TestClient, protocol: Any, digits_payload: bytes
    ) -> None:
        status, detail = protocol.problem(protocol.raw(service, "digits", digits_payload))
        assert status == 400
        assert "Cloister-Client-Digest" in detail
        assert "client_digest" in detail
        assert protocol.raw(service, "digits/versions/1", digits_payload).status_code == 200

    def test_may_come_in_the_header_of_a_framed_request(
        self, service: TestClient, digits: Any, protocol: Any, digits_payload: bytes
    ) -> None:
        elements = [digits_payload]
        header, data = protocol.header(elements), encode_elements(elements)
        stated = {"Cloister-Client-Digest": digits.digest}
        assert protocol.framed(service, "digits", header, data, **stated).status_code == 200
        other = header | {"parameters": {"client_digest": OTHER_DIGEST}}
        contradiction = protocol.framed(service, "digits", other, data, **stated)
        assert protocol.problem(contradiction)[0] == 400


def without(header: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in header.items() if name != key}


def with_input(header: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return header | {"inputs": [header["inputs"][0] | changes]}


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda _h: b"{", id="not JSON"),
        pytest.param(lambda _h: b"\xff\xfe{}", id="not UTF-8"),
        pytest.param(lambda _h: b"null", id="null"),
        pytest.param(lambda h: [h], id="a list"),
        pytest.param(lambda _h: b"[" * 16000, id="deeply nested"),
        pytest.param(lambda _h: {}, id="empty"),
        pytest.param(lambda h: without(h, "inputs"), id="no inputs"),
        pytest.param(lambda h: h | {"inputs": []}, id="an empty list of inputs"),
        pytest.param(lambda h: h | {"inputs": h["inputs"] * 2}, id="two inputs"),
        pytest.param(lambda h: h | {"outputs": h["outputs"] * 2}, id="two outputs"),
        pytest.param(lambda h: h | {"id": 7}, id="an id that is a number"),
        pytest.param(
            lambda h: json.dumps(h | {"id": "?"}).replace("?", "\\ud800").encode(),
            id="an id that is no text",
        ),
        pytest.param(lambda h: h | {"outputs": [{"name": "scores"}]}, id="an unknown output"),
        pytest.param(
            lambda h: h | {"outputs": [{"name": "result", "parameters": {"binary_data": False}}]},
            id="results in JSON",
        ),
        pytest.param(lambda h: with_input(h, name="image"), id="an unknown input"),
        pytest.param(lambda h: with_input(h, datatype="FP32"), id="another type"),
        pytest.param(lambda h: with_input(h, shape=[1, 1]), id="two dimensions"),
        pytest.param(lambda h: with_input(h, shape=[]), id="no dimension"),
        pytest.param(lambda h: with_input(h, shape=[0]), id="no elements"),
        pytest.param(lambda h: with_input(h, shape=[-1]), id="fewer than no elements"),
        pytest.param(lambda h: with_input(h, shape=[2]), id="fewer elements than stated"),
        pytest.param(lambda h: with_input(h, shape=["1"]), id="a shape of text"),
        pytest.param(lambda h: with_input(h, data=["AA=="]), id="data in JSON"),
        pytest.param(lambda h: with_input(h, parameters={}), id="no binary_data_size"),
        *(
            pytest.param(
                lambda h, size=size: with_input(h, parameters={"binary_data_size": size}),
                id=f"binary_data_size {size}",
            )
            for size in (0, 1, -1, 1803, 1805, 1 << 70, "1804", 1804.5, None)
        ),
    ],
)
def test_a_header_that_is_not_the_protocols_is_refused(
    service: TestClient,
    protocol: Any,
    digits_payload: bytes,
    spoil: Callable[[dict[str, Any]], object],
    next_good_request_succeeds: Callable[[], None],
) -> None:
    elements = [digits_payload]
    header, data = spoil(protocol.header(elements)), encode_elements(elements)
    response = protocol.framed(service, "digits/versions/1", header, data)
    assert protocol.problem(response)[0] == 400
    next_good_request_succeeds()


@pytest.mark.parametrize("length", ["0", "-1", "x", "", "1.5", "1000000", "9" * 5000])
def test_a_wrong_header_length_is_refused(
    service: TestClient, protocol: Any, digits_payload: bytes, length: str
) -> None:
    response = protocol.framed(
        service, "digits/versions/1", {}, digits_payload, **{HEADER_LENGTH: length}
    )
    assert protocol.problem(response)[0] == 400


def test_more_elements_than_the_limit_are_too_many(
    service: TestClient, protocol: Any, digits_payload: bytes
) -> None:
    elements = [digits_payload] * 5
    # Few enough bytes to be read, so that it is the count that is refused.
    short = [element[:100] for element in elements]
    for batch in (elements, short):
        response = protocol.framed(
            service, "digits/versions/1", protocol.header(batch), encode_elements(batch)
        )
        assert protocol.problem(response)[0] == 413
    accepted = protocol.framed(
        service,
        "digits/versions/1",
        protocol.header(elements[:4]),
        encode_elements(elements[:4]),
    )
    assert accepted.status_code == 200


def test_a_body_above_the_limit_is_too_large(service: TestClient, protocol: Any) -> None:
    response = protocol.raw(service, "digits/versions/1", bytes(4 * 1804 + (16 << 10) + 1))
    assert protocol.problem(response)[0] == 413
    assert response.headers["connection"] == "close"


def test_a_body_of_unstated_length_is_refused(service: TestClient, protocol: Any) -> None:
    response = service.post(
        "/v2/models/digits/versions/1/infer",
        content=iter([b"1", b"2"]),
        headers={"Content-Type": "application/octet-stream"},
    )
    assert protocol.problem(response)[0] == 411
    assert response.headers["connection"] == "close"


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/json"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Encoding": "gzip"},
    ],
)
def test_other_media_types_and_encodings_are_refused(
    service: TestClient, protocol: Any, digits_payload: bytes, headers: dict[str, str]
) -> None:
    response = protocol.raw(service, "digits/versions/1", digits_payload, **headers)
    assert protocol.problem(response)[0] == 415


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/unknown",
        "/v2/models/UPPER",
        "/v2/models/..%2Fdigits",
        "/v2/models/digits/versions/2",
        "/v2/models/digits/versions/0",
        "/v2/models/digits/versions/01",
        "/v2/models/digits/versions/-1",
        "/v2/models/digits/versions/one",
        "/v2/models/digits/versions/\u0661",
        "/v2/models/digits/versions/" + "9" * 5000,
        "/v2/models/unknown/ready",
        "/v2/models/digits/versions/2/client",
        "/v2/models/digits/versions/2/reference",
        "/v2/",
        "/",
        "/docs",
    ],
)
def test_what_is_not_there_is_not_found(service: TestClient, protocol: Any, path: str) -> None:
    assert protocol.problem(service.get(path))[0] == 404


@pytest.mark.parametrize("model", ["unknown", "digits/versions/2"])
def test_nothing_can_be_inferred_from_what_is_not_there(
    service: TestClient, protocol: Any, digits_payload: bytes, model: str
) -> None:
    assert protocol.problem(protocol.raw(service, model, digits_payload))[0] == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v2/models/digits/infer", "POST"),
        ("GET", "/v2/repository/index", "POST"),
        ("DELETE", "/v2/models/digits", "GET"),
        ("PUT", "/v2", "GET"),
    ],
)
def test_other_methods_are_not_allowed(
    service: TestClient, protocol: Any, method: str, path: str, allowed: str
) -> None:
    response = service.request(method, path)
    assert protocol.problem(response)[0] == 405
    assert response.headers["allow"] == allowed


# Every example asks the same service: that it is not made anew for each is what is meant.
many = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@many
@given(body=st.binary(max_size=600), length=st.integers(0, 700))
def test_no_bytes_make_the_service_fail(
    service: TestClient, protocol: Any, body: bytes, length: int
) -> None:
    response = service.post(
        "/v2/models/digits/versions/1/infer",
        content=body,
        headers={HEADER_LENGTH: str(length)},
    )
    assert protocol.problem(response)[0] in (400, 413)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = st.sampled_from(["id", "inputs", "outputs", "parameters"])
INPUT_FIELDS = st.sampled_from(["name", "shape", "datatype", "parameters"])


@many
@given(
    fields=st.dictionaries(FIELDS, JSON, max_size=2),
    inner=st.dictionaries(INPUT_FIELDS, JSON, max_size=2),
    data=st.binary(max_size=64),
)
def test_no_header_makes_the_service_fail(
    service: TestClient,
    protocol: Any,
    fields: dict[str, Any],
    inner: dict[str, Any],
    data: bytes,
) -> None:
    header = with_input(protocol.header([data]), **inner) | fields
    response = protocol.framed(service, "digits/versions/1", header, encode_elements([data]))
    assert protocol.problem(response)[0] in (400, 413)
