"""Compact messages: their arithmetic by its definition, and over HTTP in every combination."""

import io
import json
import math
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from lwe_definition import keystream, unpack
from lwe_definition import pack as packed

from cloister_inference.app import create_app
from cloister_inference.evaluation.native import expand, pack
from cloister_inference.options import Options
from cloister_lwe import Key, Scheme
from cloister_shared.compact import Compact
from cloister_shared.open_inference import (
    CLIENT_DIGEST,
    COMPACT_TYPE,
    HEADER_LENGTH,
    OCTETS,
    decode_elements,
    encode_elements,
)
from cloister_shared.reference import Reference
from cloister_shared.registry import Registry

FORMS = {"concrete": OCTETS, "compact": COMPACT_TYPE}
MODULUS = 1 << 64


@given(
    n_features=st.integers(1, 300),
    bits=st.integers(8, 56),
    seed=st.binary(min_size=16, max_size=16),
    data=st.data(),
)
def test_a_compact_input_stands_for_seeds_of_its_master_seed(
    n_features: int, bits: int, seed: bytes, data: st.DataObject
) -> None:
    bodies = data.draw(
        st.lists(st.integers(0, 2**bits - 1), min_size=n_features, max_size=n_features)
    )
    seeds = keystream(seed, n_features)
    expected = b"".join(
        seeds[16 * at : 16 * at + 16] + (body << (64 - bits)).to_bytes(8, "little")
        for at, body in enumerate(bodies)
    )
    assert expand(seed + packed(bodies, bits), n_features, bits) == expected


@given(
    n_outputs=st.integers(1, 5),
    dimension=st.integers(1, 200),
    bits=st.integers(8, 56),
    seed=st.integers(0, 2**32),
)
def test_a_packed_result_is_rounded_and_half_of_that_is_made_up_for(
    n_outputs: int, dimension: int, bits: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    words = rng.integers(0, MODULUS, (n_outputs, dimension + 1), dtype=np.uint64)
    step = 1 << (64 - bits)
    expected = []
    for row in words.tolist():
        rounded = [(word + step // 2) // step for word in row[:-1]]
        added = sum(
            math.trunc((upper * step - word) / 2)
            for upper, word in zip(rounded, row[:-1], strict=True)
        )
        expected += [upper % (1 << bits) for upper in rounded]
        expected.append((row[-1] + added + step // 2) % MODULUS // step % (1 << bits))
    found = pack(words.astype("<u8").tobytes(), n_outputs, dimension, bits)
    # What is made up for is summed in halves that are cut, each wrong by less than one.
    assert found == packed(expected, bits) or close(found, expected, bits)


def close(found: bytes, expected: list[int], bits: int) -> bool:
    values = unpack(found, bits)[: len(expected)]
    return all(
        (one - other) % (1 << bits) in (0, 1, (1 << bits) - 1)
        for one, other in zip(values, expected, strict=True)
    )


@pytest.mark.parametrize("excess", [-1, 1, 1000])
def test_other_lengths_are_refused(excess: int) -> None:
    with pytest.raises(ValueError, match="length of so many features"):
        expand(bytes(16 + 24 + excess), 5, 38)
    with pytest.raises(ValueError, match="length of so many outputs"):
        pack(bytes(8 * 11 * 2 + excess), 2, 10, 31)
    for bits in (7, 57):
        with pytest.raises(ValueError, match="bits of a word"):
            expand(bytes(100), 5, bits)
    for n_features in (-1, 0, 1 << 21):
        with pytest.raises(ValueError, match="out of range"):
            expand(bytes(100), n_features, 38)
    for sizes in ((0, 10), (1, 0), (1 << 17, 1), (1, 1 << 17)):
        with pytest.raises(ValueError, match="out of range"):
            pack(bytes(88), *sizes, 31)


@dataclass
class Native:
    """A key holder on the native core, of what the service offers for download."""

    name: str
    scheme: Scheme
    key: Key
    compact: Compact
    digest: str
    reference: Reference
    envelope: tuple[bytes, bytes]
    n_outputs: int

    def encrypt(self, row: np.ndarray[Any, Any], form: str) -> bytes:
        if form == "compact":
            return self.scheme.encrypt_compact(self.key, row, self.compact.body_bits)
        head, tail = self.envelope
        return head + self.scheme.encrypt(self.key, row) + tail

    def decrypt(self, result: bytes, form: str) -> list[int]:
        if form == "compact":
            scores = self.scheme.decrypt_compact(
                self.key, result, self.n_outputs, self.compact.word_bits
            )
        else:
            data = 8 * self.n_outputs * (self.scheme.dimension + 1)
            scores = self.scheme.decrypt(self.key, result[64 : 64 + data], self.n_outputs)
        return [int(score) for score in scores]


@pytest.fixture(scope="module", params=["digits", "breast_cancer"])
def holder(request: pytest.FixtureRequest, service: TestClient, artifacts: Path) -> Native:
    name = request.param
    parameters = service.get(f"/v2/models/{name}").json()["parameters"]
    client_zip = service.get(f"/v2/models/{name}/versions/1/client").content
    specs = json.loads(zipfile.ZipFile(io.BytesIO(client_zip)).read("client.specs.json"))
    sent, received = (
        specs["circuits"][0][side][0]["typeInfo"]["lweCiphertext"] for side in ("inputs", "outputs")
    )
    encoding = received["encoding"]["integer"]
    scheme = Scheme(
        dimension=sent["encryption"]["lweDimension"],
        std=math.sqrt(sent["encryption"]["variance"]),
        input_width=sent["encoding"]["integer"]["width"],
        output_width=encoding["width"],
        output_is_signed=encoding["isSigned"],
    )
    template = (artifacts / name / "1" / "input_template.bin").read_bytes()
    n_features = math.prod(sent["abstractShape"]["dimensions"])
    return Native(
        name=name,
        scheme=scheme,
        key=scheme.new_key(),
        compact=Compact(
            body_bits=parameters["compact"]["body_bits"],
            word_bits=parameters["compact"]["word_bits"],
        ),
        digest=parameters["client_digest"],
        reference=Reference.read(artifacts / name / "1" / "reference.npz"),
        envelope=(template[:64], template[64 + 24 * n_features :]),
        n_outputs=math.prod(received["abstractShape"]["dimensions"]),
    )


def rows(holder: Native, count: int) -> np.ndarray[Any, Any]:
    inputs = np.random.default_rng(0).random((count, holder.reference.coef.shape[1]))
    return holder.reference.quantise(inputs)


@pytest.mark.parametrize("sent", FORMS)
@pytest.mark.parametrize("asked", FORMS)
def test_raw_messages_in_every_form(
    holder: Native, service: TestClient, sent: str, asked: str
) -> None:
    for row in rows(holder, 25):
        answer = service.post(
            f"/v2/models/{holder.name}/infer",
            content=holder.encrypt(row, sent),
            headers={
                "Content-Type": FORMS[sent],
                "Accept": f"{FORMS[asked]}, text/html;q=0.1",
                CLIENT_DIGEST: holder.digest,
            },
        )
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == FORMS[asked]
        expected = holder.reference.integer_scores(row[None, :])[0].tolist()
        assert holder.decrypt(answer.content, asked) == expected


@pytest.mark.parametrize("sent", FORMS)
@pytest.mark.parametrize("asked", FORMS)
def test_framed_messages_in_every_form(
    holder: Native, service: TestClient, sent: str, asked: str
) -> None:
    some = rows(holder, 4)
    data = encode_elements([holder.encrypt(row, sent) for row in some])
    header = json.dumps(
        {
            "inputs": [
                {
                    "name": "ciphertext",
                    "datatype": "BYTES",
                    "shape": [4],
                    "parameters": {"binary_data_size": len(data), "form": sent},
                }
            ],
            "outputs": [{"name": "result", "parameters": {"binary_data": True, "form": asked}}],
            "parameters": {"client_digest": holder.digest},
        }
    ).encode()
    answer = service.post(
        f"/v2/models/{holder.name}/infer",
        content=header + data,
        headers={"Content-Type": OCTETS, HEADER_LENGTH: str(len(header))},
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == OCTETS
    results = decode_elements(answer.content[int(answer.headers[HEADER_LENGTH]) :], 4)
    expected = holder.reference.integer_scores(some).tolist()
    assert [holder.decrypt(result, asked) for result in results] == expected


def test_a_models_metadata_say_how_long_compact_messages_are(
    holder: Native, service: TestClient
) -> None:
    told = service.get(f"/v2/models/{holder.name}").json()["parameters"]["compact"]
    (row,) = rows(holder, 1)
    sent = holder.encrypt(row, "compact")
    assert told["input_bytes"] == len(sent)
    answer = service.post(
        f"/v2/models/{holder.name}/versions/1/infer",
        content=sent,
        headers={"Content-Type": COMPACT_TYPE, "Accept": COMPACT_TYPE},
    )
    assert told["output_bytes"] == len(answer.content)
    assert len(sent) < 24 * len(row) / 3


@pytest.mark.parametrize("excess", [-1, 1])
def test_a_compact_input_of_another_length_is_refused(
    holder: Native, service: TestClient, excess: int
) -> None:
    (row,) = rows(holder, 1)
    sent = holder.encrypt(row, "compact")
    answer = service.post(
        f"/v2/models/{holder.name}/versions/1/infer",
        content=(sent + b"x")[: len(sent) + excess],
        headers={"Content-Type": COMPACT_TYPE},
    )
    assert answer.status_code == 400
    assert f"a compact input of this model has {len(sent)}" in answer.json()["detail"]


def test_one_form_is_not_taken_for_the_other(holder: Native, service: TestClient) -> None:
    (row,) = rows(holder, 1)
    for sent, stated in (("compact", "concrete"), ("concrete", "compact")):
        answer = service.post(
            f"/v2/models/{holder.name}/versions/1/infer",
            content=holder.encrypt(row, sent),
            headers={"Content-Type": FORMS[stated]},
        )
        assert answer.status_code == 400


@pytest.fixture
def by_concrete(artifacts: Path) -> Iterator[TestClient]:
    options = Options(threads=1, max_batch=4, evaluator="concrete")
    with TestClient(create_app(Registry(artifacts), options)) as client:
        yield client


@pytest.mark.parametrize("stated", ["Content-Type", "Accept"])
def test_concretes_run_takes_no_compact_messages(
    by_concrete: TestClient, holder: Native, stated: str
) -> None:
    address = f"/v2/models/{holder.name}/versions/1"
    assert by_concrete.get(address).json()["parameters"]["compact"] is None
    (row,) = rows(holder, 1)
    form = "compact" if stated == "Content-Type" else "concrete"
    answer = by_concrete.post(
        f"{address}/infer",
        content=holder.encrypt(row, form),
        headers={"Content-Type": FORMS[form]} | {stated: COMPACT_TYPE},
    )
    assert answer.status_code == 415
    assert "takes and gives no compact messages" in answer.json()["detail"]


def test_fewer_bits_than_were_chosen_give_wrong_results(
    holder: Native, service: TestClient, native_results: Callable[[Native, int], int]
) -> None:
    assert native_results(holder, holder.compact.word_bits) == 0
    assert native_results(holder, holder.compact.word_bits - 5) > 0


@pytest.fixture
def native_results(service: TestClient) -> Callable[[Native, int], int]:
    """Count wrong results of 200 rows, rounded to so many bits by the service's own code."""

    def count(holder: Native, word_bits: int) -> int:
        wrong = 0
        some = rows(holder, 50)
        for row, expected in zip(some, holder.reference.integer_scores(some), strict=True):
            sent = holder.encrypt(row, "compact")
            answer = service.post(
                f"/v2/models/{holder.name}/versions/1/infer",
                content=sent,
                headers={"Content-Type": COMPACT_TYPE},
            )
            data = answer.content[64 : 64 + 8 * holder.n_outputs * (holder.scheme.dimension + 1)]
            for _ in range(4):
                result = pack(data, holder.n_outputs, holder.scheme.dimension, word_bits)
                found = holder.scheme.decrypt_compact(
                    holder.key, result, holder.n_outputs, word_bits
                )
                wrong += not np.array_equal(found, expected)
        return wrong

    return count
