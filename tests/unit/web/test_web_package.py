"""client.zip from a service that is broken or hostile, and messages around ciphertexts."""

import base64
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from javascript import JavaScript, JavaScriptError

from cloister_keyholder.package.content import open_package
from cloister_shared.artifact import CLIENT_ZIP, EVALUATION_KEYS

Json = dict[str, Any]
SPECS, PROCESSING = "client.specs.json", "serialized_processing.json"


@pytest.fixture(scope="module")
def client_zip(digits_artifacts: Path) -> bytes:
    return (digits_artifacts / "artifacts" / "digits" / "1" / CLIENT_ZIP).read_bytes()


def members_of(client_zip: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(client_zip)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return packed.getvalue()


def changed(client_zip: bytes, name: str, change: Callable[[Json], object]) -> bytes:
    members = members_of(client_zip)
    content = json.loads(members[name])
    change(content)
    return zipped({**members, name: json.dumps(content).encode()})


def refused(javascript: JavaScript, data: bytes, error: str, why: str) -> None:
    with pytest.raises(JavaScriptError, match=why) as raised:
        javascript("open", zip=data)
    assert raised.value.name == error


def test_what_is_in_it_is_what_python_reads(javascript: JavaScript, client_zip: bytes) -> None:
    package = open_package(client_zip)
    found = javascript("open", zip=client_zip)
    assert found["name"] == "digits"
    assert found["link"] == package.link
    assert found["features"] == package.features.tolist()
    quantiser = package.quantiser
    assert found["quantiser"] == {
        "scale": quantiser.scale,
        "zeroPoint": quantiser.zero_point,
        "low": quantiser.low,
        "high": quantiser.high,
    }
    for gate, side in (
        ("input", package.circuit.specs.input),
        ("output", package.circuit.specs.output),
    ):
        assert found[gate]["dimension"] == side.encryption.lwe_dimension
        assert found[gate]["variance"] == side.encryption.variance
        assert found[gate]["width"] == side.encoding.integer.width


def gates(specs: Json) -> list[Json]:
    (circuit,) = specs["circuits"]
    return [circuit[side][0]["typeInfo"]["lweCiphertext"] for side in ("inputs", "outputs")]


def set_encryption(specs: Json, **changes: Any) -> None:
    for gate in gates(specs):
        gate["encryption"].update(changes)


def less_noise(specs: Json) -> None:
    set_encryption(specs, variance=gates(specs)[0]["encryption"]["variance"] * 0.99)


def smaller_dimension(specs: Json) -> None:
    set_encryption(specs, lweDimension=1000)
    specs["keyset"]["lweSecretKeys"][0]["params"]["lweDimension"] = 1000
    shape = [1, 10, 1001]
    gates(specs)[1]["concreteShape"]["dimensions"] = shape
    specs["circuits"][0]["outputs"][0]["rawInfo"]["shape"]["dimensions"] = shape


def key_of_another_id(specs: Json) -> None:
    """Concrete takes an id for a place in the list of keys."""
    specs["keyset"]["lweSecretKeys"][0]["id"] = 1
    set_encryption(specs, keyId=1)


UNSAFE: dict[str, tuple[Callable[[Json], object], str]] = {
    "less noise": (less_noise, "below 128 bits"),
    "no noise": (lambda s: set_encryption(s, variance=0.0), "encryption.variance"),
    "noise as text": (lambda s: set_encryption(s, variance="1"), "encryption.variance"),
    "a smaller dimension": (smaller_dimension, "below 128 bits"),
    "a key of another id": (key_of_another_id, r"\.id: it must be"),
    "another key": (lambda s: set_encryption(s, keyId=1), "not of the secret key"),
    "another kind of key": (
        lambda s: s["keyset"]["lweSecretKeys"][0]["params"].update(keyType="ternary"),
        'keyType: it must be one of \\["binary"\\]',
    ),
    "two keys": (
        lambda s: s["keyset"]["lweSecretKeys"].append(s["keyset"]["lweSecretKeys"][0]),
        "lweSecretKeys",
    ),
    "a keyswitch": (lambda s: s["keyset"]["lweKeyswitchKeys"].append({}), "lweKeyswitchKeys"),
    "an unknown member": (
        lambda s: gates(s)[0]["encryption"].update(seeded="no"),
        "encryption.seeded: it is not known",
    ),
    "a lacking member": (lambda s: gates(s)[0].pop("compression"), "compression"),
    "another modulus": (
        lambda s: set_encryption(s, modulus={"modulus": {"power": 2}}),
        "modulus.power: it is not known",
    ),
    "whole ciphertexts": (lambda s: gates(s)[0].update(compression="none"), "compression is none"),
    "another shape": (
        lambda s: gates(s)[0]["abstractShape"].update(dimensions=[1, 58]),
        "do not fit a row of 58",
    ),
    "a wide encoding": (
        lambda s: gates(s)[0]["encoding"]["integer"].update(width=62),
        "integer.width",
    ),
    "two circuits": (lambda s: s["circuits"].append(s["circuits"][0]), "circuits"),
}


@pytest.mark.parametrize("what", UNSAFE)
def test_parameters_that_are_not_known_to_be_safe_are_refused(
    javascript: JavaScript, client_zip: bytes, what: str
) -> None:
    change, why = UNSAFE[what]
    refused(javascript, changed(client_zip, SPECS, change), "UnsafeParameters", why)


def test_a_tree_is_refused_with_the_reason(javascript: JavaScript, tree_artifacts: Path) -> None:
    data = (tree_artifacts / "artifacts" / "tree" / "1" / CLIENT_ZIP).read_bytes()
    refused(javascript, data, "InvalidClientPackage", "is a tree: it needs evaluation keys")


DISAGREEING: dict[str, tuple[str, Callable[[Json], object], str]] = {
    "another version of Concrete": (
        "versions.json",
        lambda v: v.update({"concrete-python": "2.11.0"}),
        "IncompatibleVersion",
    ),
    "no version": ("versions.json", lambda v: v.clear(), "InvalidClientPackage"),
    "another estimator": (
        "card.json",
        lambda c: c.update(estimator="RandomForestClassifier"),
        "InvalidClientPackage",
    ),
    "another task": ("card.json", lambda c: c.update(estimator="Ridge"), "InvalidClientPackage"),
    "fewer classes": (
        "card.json",
        lambda c: c["data"].update(classes=[0, 1, 2]),
        "InvalidClientPackage",
    ),
    "labels that cannot be shown": (
        "card.json",
        lambda c: c["data"].update(classes=["a\u202eb", *range(9)]),
        "InvalidClientPackage",
    ),
    "bounds that are none": (
        "card.json",
        lambda c: c["data"]["features"][0].update(low=16),
        "InvalidClientPackage",
    ),
    "an unknown policy": (
        "card.json",
        lambda c: c["data"]["features"][0].update(wrap=True),
        "InvalidClientPackage",
    ),
    "features out of order": (
        "circuit.json",
        lambda c: c["features"].reverse(),
        "InvalidClientPackage",
    ),
    "features that are not there": (
        "circuit.json",
        lambda c: c["features"].append(64),
        "InvalidClientPackage",
    ),
    "edges": ("circuit.json", lambda c: c.update(edges=[]), "InvalidClientPackage"),
    "too few zero points": (
        PROCESSING,
        lambda p: p["output_quantizers"][0]["serialized_value"]["zero_point"].update(
            serialized_value=[[1, 2]]
        ),
        "InvalidClientPackage",
    ),
    "a scale of zero": (
        PROCESSING,
        lambda p: p["input_quantizers"][0]["serialized_value"]["scale"].update(serialized_value=0),
        "InvalidClientPackage",
    ),
    "inputs that the circuit cannot hold": (
        SPECS,
        lambda s: gates(s)[0]["encoding"]["integer"].update(width=7),
        "InvalidClientPackage",
    ),
}


@pytest.mark.parametrize("what", DISAGREEING)
def test_parts_that_disagree_are_refused(
    javascript: JavaScript, client_zip: bytes, what: str
) -> None:
    name, change, error = DISAGREEING[what]
    refused(javascript, changed(client_zip, name, change), error, ".")


@pytest.mark.parametrize("name", [SPECS, PROCESSING, "versions.json", "card.json"])
def test_a_part_that_is_missing_or_no_json_is_refused(
    javascript: JavaScript, client_zip: bytes, name: str
) -> None:
    members = members_of(client_zip)
    broken = zipped({**members, name: b"{"})
    error = "UnsafeParameters" if name == SPECS else "InvalidClientPackage"
    refused(javascript, broken, error, "")
    del members[name]
    refused(javascript, zipped(members), "InvalidClientPackage", f"lacks {name}")


def test_stored_members_are_read_as_packed_ones(javascript: JavaScript, client_zip: bytes) -> None:
    stored = zipped(members_of(client_zip), zipfile.ZIP_STORED)
    assert javascript("open", zip=stored) == javascript("open", zip=client_zip)


def test_a_bomb_is_refused(javascript: JavaScript, client_zip: bytes) -> None:
    bomb = zipped({**members_of(client_zip), "bomb": bytes(33 << 20)})
    refused(javascript, bomb, "InvalidClientPackage", "more bytes than it may")
    # The list of members states a size that is not that of what is packed.
    (at,) = [
        i
        for i in range(len(bomb))
        if bomb[i : i + 4] == b"PK\1\2" and bomb[i + 46 :][:4] == b"bomb"
    ]
    lying = bomb[: at + 24] + (1000).to_bytes(4, "little") + bomb[at + 28 :]
    refused(javascript, lying, "InvalidClientPackage", "larger than the archive states")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_packings_are_refused(javascript: JavaScript, client_zip: bytes, method: int) -> None:
    data = zipped(members_of(client_zip), method)
    refused(javascript, data, "InvalidClientPackage", "packed in an unknown way")


def test_too_many_members_are_refused(javascript: JavaScript) -> None:
    data = zipped({str(i): b"" for i in range(65)})
    refused(javascript, data, "InvalidClientPackage", "more than 64 members")


def test_damaged_archives_never_open_otherwise(javascript: JavaScript, client_zip: bytes) -> None:
    whole, rng = javascript("open", zip=client_zip), np.random.default_rng(0)
    refusals: list[str] = []
    for _ in range(300):
        data = bytearray(client_zip)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        try:
            opened = javascript("open", zip=bytes(data))
        except JavaScriptError as error:
            refusals.append(error.name)
        else:
            assert opened == whole
    assert set(refusals) <= {"InvalidClientPackage", "IncompatibleVersion"}
    assert len(refusals) > 200
    for length in range(0, len(client_zip), 97):
        refused(javascript, client_zip[:length], "InvalidClientPackage", "does not end as a zip")


def test_the_envelope_is_concretes(
    javascript: JavaScript, client_zip: bytes, breast_cancer_artifacts: Path
) -> None:
    other = breast_cancer_artifacts / "artifacts" / "breast_cancer" / "1" / CLIENT_ZIP
    for data in (client_zip, other.read_bytes()):
        circuit = open_package(data, "concrete").circuit
        row = np.zeros(circuit.specs.n_features, dtype=np.int64)
        message = circuit.encrypt(row).ciphertext
        ciphertexts = message[64 : 64 + 24 * len(row)]
        found = javascript("wrap", zip=data, data=ciphertexts)
        assert base64.b64decode(found) == message


def test_a_result_is_held_to_its_form(
    javascript: JavaScript, client_zip: bytes, digits_artifacts: Path
) -> None:
    # Takes seconds to import.
    from concrete.ml.deployment import FHEModelServer  # noqa: PLC0415

    folder = digits_artifacts / "artifacts" / "digits" / "1"
    circuit = open_package(client_zip, "concrete").circuit
    row = np.zeros(circuit.specs.n_features, dtype=np.int64)
    keys = (folder / EVALUATION_KEYS).read_bytes()
    template = FHEModelServer(str(folder)).run(circuit.encrypt(row).ciphertext, keys)
    words = base64.b64decode(javascript("unwrap", zip=client_zip, result=template))
    assert words == template[64:-200]
    for at in (0, 9, 60, len(template) - 1, len(template) - 150):
        damaged = bytearray(template)
        damaged[at] ^= 1
        with pytest.raises(JavaScriptError, match="damaged, or of another circuit"):
            javascript("unwrap", zip=client_zip, result=bytes(damaged))
    for wrong in (template[:-1], template + b"\0", b""):
        with pytest.raises(JavaScriptError, match="cannot be one") as raised:
            javascript("unwrap", zip=client_zip, result=wrong)
        assert raised.value.name == "InvalidResult"
