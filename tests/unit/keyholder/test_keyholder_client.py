"""The native client and Concrete's, over the stock server: each opens what the other encrypts."""

import io
import json
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from concrete.compiler import Keyset, KeysetCache, ProgramInfo
from fake_service import FakeService, rezip
from scipy import stats

import cloister_lwe
from cloister_keyholder import (
    ClientUnavailable,
    EncryptedModel,
    InvalidAnswer,
    InvalidResult,
    KeyUnusable,
    Limits,
    UnsafeParameters,
)
from cloister_keyholder.encryption import wire
from cloister_keyholder.encryption.circuit import Circuit
from cloister_keyholder.encryption.client import ClientSetting
from cloister_keyholder.package.content import RUNTIME, RUNTIME_VERSION, open_package
from cloister_shared.reference import Reference

Integers = np.ndarray[Any, np.dtype[np.int64]]

URL = "http://service.test"
MODELS = ["digits", "breast_cancer"]
"""With signed scores and with unsigned ones."""
SETTINGS: list[ClientSetting] = ["native", "concrete"]


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client_zip(name: str, request: pytest.FixtureRequest) -> bytes:
    folder: Path = request.getfixturevalue(f"{name}_folder")
    return (folder / "client.zip").read_bytes()


@pytest.fixture
def service(name: str, request: pytest.FixtureRequest) -> FakeService:
    made: FakeService = request.getfixturevalue(f"{name}_service")
    return made


@pytest.fixture
def reference(name: str, request: pytest.FixtureRequest) -> Reference:
    read: Reference = request.getfixturevalue(f"{name}_reference")
    return read


@pytest.fixture
def circuits(client_zip: bytes) -> dict[str, Circuit]:
    return {setting: open_package(client_zip, setting).circuit for setting in SETTINGS}


@pytest.fixture
def rows(circuits: dict[str, Circuit]) -> Integers:
    low, high = circuits["native"].specs.input_range
    n_features = circuits["native"].specs.n_features
    return np.random.default_rng(0).integers(max(low, -128), min(high, 128), (25, n_features))


@pytest.mark.parametrize("encrypts", SETTINGS)
@pytest.mark.parametrize("decrypts", SETTINGS)
def test_each_opens_what_the_other_encrypted(
    encrypts: str,
    decrypts: str,
    circuits: dict[str, Circuit],
    rows: Integers,
    service: FakeService,
    reference: Reference,
) -> None:
    for row, expected in zip(rows, reference.integer_scores(rows), strict=True):
        query = circuits[encrypts].encrypt(row)
        held = circuits[decrypts].read_key(query.key.export())
        np.testing.assert_array_equal(held.decrypt(service.run(query.ciphertext)), expected)


def test_keys_are_exported_in_the_same_form(circuits: dict[str, Circuit]) -> None:
    for one, other in [("native", "concrete"), ("concrete", "native")]:
        exported = circuits[one].client.new_key().export()
        assert circuits[other].read_key(exported).export() == exported


@pytest.mark.parametrize("dimension", [450, 1004, 1005, 1006, 1007, 1014, 1015, 1016, 1017, 4096])
def test_keys_of_any_length_are_concretes(
    dimension: int, digits_folder: Path, tmp_path: Path
) -> None:
    """A key is kept in one segment of a message or in two."""

    def resize(specs: dict[str, Any]) -> None:
        specs["keyset"]["lweSecretKeys"][0]["params"]["lweDimension"] = dimension
        for side, words in (("inputs", 3), ("outputs", dimension + 1)):
            (gate,) = specs["circuits"][0][side]
            ciphertext = gate["typeInfo"]["lweCiphertext"]
            ciphertext["encryption"] |= {"lweDimension": dimension, "variance": 2.0**-16}
            shape = [*ciphertext["abstractShape"]["dimensions"], words]
            ciphertext["concreteShape"]["dimensions"] = shape
            gate["rawInfo"]["shape"]["dimensions"] = shape

    data = changed((digits_folder / "client.zip").read_bytes(), resize)
    native, concrete = (open_package(data, setting).circuit for setting in SETTINGS)
    for one, other in [(native, concrete), (concrete, native)]:
        exported = one.client.new_key().export()
        assert other.read_key(exported).export() == exported
    info = ProgramInfo.deserialize(native.specs.program_info())
    made = Keyset(info, KeysetCache(str(tmp_path)), 0, 0, 0, 0, None)
    (cached,) = tmp_path.glob("*/secretKey_*")
    bits = wire.read_any_key(cached.read_bytes(), native.specs)
    assert wire.write_secret_key(native.specs, bits) == cached.read_bytes()
    assert wire.write_keyset(native.specs, bits) == made.serialize()


def test_a_message_is_concretes_but_for_its_ciphertexts(
    circuits: dict[str, Circuit], rows: Integers
) -> None:
    native, concrete = (circuits[setting].encrypt(rows[0]).ciphertext for setting in SETTINGS)
    head, tail = wire.input_envelope(circuits["native"].specs)
    between = slice(len(head), len(native) - len(tail))
    assert len(native) == len(concrete)
    assert native[: between.start] == concrete[: between.start] == head
    assert native[between.stop :] == concrete[between.stop :] == tail
    assert native[between] != concrete[between]


def test_any_words_are_decoded_alike(
    circuits: dict[str, Circuit],
    rows: Integers,
    service: FakeService,
) -> None:
    rng = np.random.default_rng(1)
    specs = circuits["native"].specs
    query = circuits["concrete"].encrypt(rows[0])
    held, result = query.key.export(), service.run(query.ciphertext)
    start = len(result) - len(wire.input_envelope(specs)[1]) - specs.result_data_bytes
    for _ in range(300):
        words = rng.bytes(specs.result_data_bytes)
        made = result[:start] + words + result[start + len(words) :]
        native, concrete = (circuits[setting].read_key(held).decrypt(made) for setting in SETTINGS)
        np.testing.assert_array_equal(native, concrete)


def test_both_have_the_same_noise(circuits: dict[str, Circuit]) -> None:
    """Under keys without a set bit, which either client can be given, a body of zero is noise."""
    specs = circuits["native"].specs
    empty = wire.write_keyset(specs, np.zeros(specs.lwe_dimension, dtype=np.uint8))
    head, tail = wire.input_envelope(specs)
    zeros = np.zeros(specs.n_features, dtype=np.int64)
    noise = {}
    for setting in SETTINGS:
        key = circuits[setting].client.read_key(empty)
        bodies: list[np.ndarray[Any, Any]] = []
        while len(bodies) * specs.n_features < 20_000:
            message = key.encrypt(zeros)
            words = np.frombuffer(message[len(head) : len(message) - len(tail)], dtype="<i8")
            bodies.append(words.reshape(-1, 3)[:, 2])
        sigma = specs.input.encryption.variance**0.5 * 2.0**64
        noise[setting] = np.concatenate(bodies) / sigma
    for found in noise.values():
        assert abs(found.mean()) < 6 / len(found) ** 0.5
        assert abs(found.var() - 1) < 6 * (2 / len(found)) ** 0.5
    assert stats.ks_2samp(noise["native"], noise["concrete"]).pvalue > 1e-9


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_model_predicts_by_either(
    setting: ClientSetting, breast_cancer_service: FakeService, breast_cancer_data: Any
) -> None:
    rows = breast_cancer_data[0][:12]
    transport = breast_cancer_service.transport
    with EncryptedModel(URL, "breast_cancer", transport=transport, client=setting) as model:
        assert model.client == setting
        found = model.decision_function(rows)
        expected = model.dequantise(
            Reference.read(breast_cancer_service.folder / "reference.npz").integer_scores(
                model.quantise(rows)
            )
        )
    np.testing.assert_array_equal(found, expected[:, 0])


@pytest.mark.parametrize("count", [1, 12])
def test_compact_messages_are_exchanged_where_both_sides_can(
    count: int, service: FakeService, name: str, request: pytest.FixtureRequest
) -> None:
    rows = request.getfixturevalue(f"{name}_data")[0][:count]
    service.compact = True
    found, sizes = {}, {}
    ways: list[tuple[ClientSetting, bool]] = [
        ("native", True),
        ("native", False),
        ("concrete", True),
    ]
    for client, compact in ways:
        limits = Limits(processes=1, batch=4)
        with EncryptedModel(
            URL, name, transport=service.transport, limits=limits, client=client, compact=compact
        ) as model:
            answers = list(model.ask_all(model.quantise(rows)))
            found[client, compact] = [answer.integer_scores.tolist() for answer in answers]
            sizes[client, compact] = answers[0].bytes_up, answers[0].bytes_down
    assert found["native", True] == found["native", False] == found["concrete", True]
    assert sizes["native", False] == sizes["concrete", True]
    assert sizes["native", True][0] < sizes["native", False][0] / 3
    assert sizes["native", True][1] < 0.55 * sizes["native", False][1]


@pytest.mark.parametrize("damage", [lambda result: result[:-1], lambda result: result + b"x"])
def test_a_compact_result_of_another_length_is_refused(
    damage: Any, digits_service: FakeService, digits_data: Any
) -> None:
    digits_service.compact, digits_service.tamper = True, damage
    with (
        EncryptedModel(URL, "digits", transport=digits_service.transport) as model,
        pytest.raises(InvalidAnswer),
    ):
        model.predict(digits_data[0][:1])


@pytest.mark.parametrize("bits", [{"body_bits": 7}, {"word_bits": 57}, {"word_bits": 31.5}, {}])
def test_compact_forms_that_are_none_are_refused(bits: Any, digits_service: FakeService) -> None:
    described = digits_service.metadata()
    described["parameters"]["compact"] = {"body_bits": 34, "word_bits": 31} | bits
    if not bits:
        described["parameters"]["compact"] = {}
    digits_service.interceptors.append(lambda _: httpx.Response(200, json=described))
    with pytest.raises(InvalidAnswer, match="does not describe"):
        EncryptedModel(URL, "digits", transport=digits_service.transport)


def test_the_native_client_is_taken_where_it_fits(
    digits_service: FakeService, digits_data: Any
) -> None:
    with EncryptedModel(
        URL, "digits", transport=digits_service.transport, limits=Limits(processes=2)
    ) as model:
        assert model.client == "native"
        model.predict(digits_data[0][:40])


def test_concretes_serves_where_the_core_was_not_built(
    client_zip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloister_lwe, "_lwe", None)
    circuit = open_package(client_zip).circuit
    assert circuit.client.name == "concrete"
    assert "not built" in circuit.client_reason
    with pytest.raises(ClientUnavailable, match=r"CLOISTER_CLIENT=native, but .* not built"):
        open_package(client_zip, "native")


WITHOUT_CONCRETE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("concrete", "torch", "sklearn"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
from pathlib import Path
import numpy as np
from cloister_keyholder import ClientUnavailable
from cloister_keyholder.__main__ import app
from cloister_keyholder.package.content import open_package

data = Path(sys.argv[1]).read_bytes()
circuit = open_package(data).circuit
query = circuit.encrypt(np.zeros(circuit.specs.n_features, dtype=np.int64))
print(circuit.client.name, len(query.ciphertext))
try:
    open_package(data, "concrete")
except ClientUnavailable as error:
    print(error)
"""


def test_a_linear_model_needs_no_concrete_at_all(digits_folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_CONCRETE, str(digits_folder / "client.zip")],
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = done.stdout.splitlines()
    assert first.startswith("native ")
    assert "install cloister-keyholder[concrete]" in second


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("variance", [0.0, 1e-40, 5e-324])
def test_no_client_encrypts_below_the_security_curve(
    setting: ClientSetting, variance: float, client_zip: bytes
) -> None:
    def weaken(specs: dict[str, Any]) -> None:
        for gate in (*specs["circuits"][0]["inputs"], *specs["circuits"][0]["outputs"]):
            gate["typeInfo"]["lweCiphertext"]["encryption"]["variance"] = variance

    with pytest.raises(UnsafeParameters):
        open_package(changed(client_zip, weaken), setting)


def changed(client_zip: bytes, change: Any) -> bytes:
    specs = json.loads(zipfile.ZipFile(io.BytesIO(client_zip)).read("client.specs.json"))
    change(specs)
    return rezip(client_zip, {"client.specs.json": json.dumps(specs).encode()})


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda key: key[:-8],
        lambda key: key + bytes(8),
        lambda key: key[:8] + bytes([key[8] ^ 1]) + key[9:],
    ],
    ids=["empty", "short", "long", "another length"],
)
def test_what_is_no_key_is_refused(setting: str, damage: Any, circuits: dict[str, Circuit]) -> None:
    key = circuits["native"].client.new_key().export()
    with pytest.raises(KeyUnusable):
        circuits[setting].read_key(damage(key))


@pytest.mark.parametrize("word", [2, 1 << 63, 0xFFFFFFFFFFFFFFFF])
def test_a_key_that_is_not_binary_is_refused(word: int, circuits: dict[str, Circuit]) -> None:
    key = circuits["native"].client.new_key().export()
    with pytest.raises(KeyUnusable):
        circuits["native"].read_key(key[:-8] + word.to_bytes(8, "little"))


def test_a_result_of_another_form_is_refused(
    circuits: dict[str, Circuit],
    rows: Integers,
    service: FakeService,
) -> None:
    circuit = circuits["native"]
    query = circuit.encrypt(rows[0])
    held, result = query.key.export(), service.run(query.ciphertext)
    head = (
        len(result) - circuit.specs.result_data_bytes - len(wire.input_envelope(circuit.specs)[1])
    )
    around = [*range(head), *range(head + circuit.specs.result_data_bytes, len(result))]
    for at in around:
        broken = result[:at] + bytes([result[at] ^ 0x10]) + result[at + 1 :]
        with pytest.raises(InvalidResult):
            circuit.read_key(held).decrypt(broken)


def test_a_key_is_wiped_with_its_one_result(
    circuits: dict[str, Circuit], service: FakeService
) -> None:
    circuit = circuits["native"]
    key = circuit.client.new_key()
    query = circuit.encrypt(np.zeros(circuit.specs.n_features, dtype=np.int64))
    query.decrypt(service.run(query.ciphertext))
    with pytest.raises(KeyUnusable):
        query.key.export()
    key.wipe()
    with pytest.raises(ValueError, match="wiped"):
        key.export()


def test_the_version_that_is_expected_is_the_one_that_is_installed() -> None:
    assert version(RUNTIME) == RUNTIME_VERSION
