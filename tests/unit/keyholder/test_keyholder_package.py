"""client.zip from a service that is broken or hostile."""

import copy
import io
import json
import math
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fake_service import FakeService, rezip, specs_of

from cloister_keyholder import (
    EncryptedModel,
    IncompatibleVersion,
    InvalidAnswer,
    InvalidClientPackage,
    UnsafeParameters,
)
from cloister_keyholder.encryption.parameters import read_specs, smallest_safe_log2_std
from cloister_keyholder.package.archive import read_members
from cloister_keyholder.package.content import open_package
from cloister_keyholder.service import api as api_module
from cloister_shared.artifact import CIRCUIT, CLIENT_ZIP
from cloister_shared.errors import CloisterError
from cloister_shared.reference import Reference

URL = "http://service.test"
Json = dict[str, Any]


@pytest.fixture
def client_zip(digits_folder: Path) -> bytes:
    return (digits_folder / CLIENT_ZIP).read_bytes()


def ciphertexts(specs: Json) -> list[Json]:
    (circuit,) = specs["circuits"]
    return [circuit[side][0]["typeInfo"]["lweCiphertext"] for side in ("inputs", "outputs")]


def with_variance(specs: Json, log2_std: float) -> None:
    for ciphertext in ciphertexts(specs):
        ciphertext["encryption"]["variance"] = 2.0 ** (2 * log2_std)


def with_dimension(specs: Json, dimension: int) -> None:
    specs["keyset"]["lweSecretKeys"][0]["params"]["lweDimension"] = dimension
    for ciphertext in ciphertexts(specs):
        ciphertext["encryption"]["lweDimension"] = dimension
    output, n = specs["circuits"][0]["outputs"][0], ciphertexts(specs)[1]["abstractShape"]
    shape = [*n["dimensions"], dimension + 1]
    output["rawInfo"]["shape"]["dimensions"] = shape
    ciphertexts(specs)[1]["concreteShape"]["dimensions"] = shape


def zero_variance(specs: Json) -> None:
    for ciphertext in ciphertexts(specs):
        ciphertext["encryption"]["variance"] = 0.0


def small_variance(specs: Json) -> None:
    dimension = specs["keyset"]["lweSecretKeys"][0]["params"]["lweDimension"]
    with_variance(specs, smallest_safe_log2_std(dimension) - 0.01)


def vanishing_variance(specs: Json) -> None:
    """On the curve, were it not that words of 64 bits cannot hold such noise."""
    with_dimension(specs, 4000)
    with_variance(specs, -90)


def small_dimension(specs: Json) -> None:
    with_dimension(specs, 1000)


def tiny_dimension(specs: Json) -> None:
    with_dimension(specs, 400)
    with_variance(specs, -1)


def ternary_key(specs: Json) -> None:
    specs["keyset"]["lweSecretKeys"][0]["params"]["keyType"] = "ternary"


def another_key(specs: Json) -> None:
    ciphertexts(specs)[0]["encryption"]["keyId"] = 1


def key_of_id(id_: int) -> Callable[[Json], None]:
    def change(specs: Json) -> None:
        specs["keyset"]["lweSecretKeys"][0]["id"] = id_
        for ciphertext in ciphertexts(specs):
            ciphertext["encryption"]["keyId"] = id_

    change.__name__ = f"key_of_id_{id_}"
    return change


def second_key(specs: Json) -> None:
    specs["keyset"]["lweSecretKeys"] *= 2


def bootstrap_key(specs: Json) -> None:
    specs["keyset"]["lweBootstrapKeys"] = [{"id": 0}]


def keyswitch_key(specs: Json) -> None:
    specs["keyset"]["lweKeyswitchKeys"] = [{"id": 0}]


def packing_key(specs: Json) -> None:
    specs["keyset"]["packingKeyswitchKeys"] = [{"id": 0}]


def two_circuits(specs: Json) -> None:
    specs["circuits"] *= 2


def no_circuit(specs: Json) -> None:
    specs["circuits"] = []


def two_inputs(specs: Json) -> None:
    specs["circuits"][0]["inputs"] *= 2


def unknown_encoding(specs: Json) -> None:
    ciphertexts(specs)[0]["encoding"] = {"boolean": {}}


def chunked_encoding(specs: Json) -> None:
    ciphertexts(specs)[0]["encoding"]["integer"]["mode"] = {"chunked": {"size": 3, "width": 2}}


def unknown_compression(specs: Json) -> None:
    ciphertexts(specs)[0]["compression"] = "paillier"


def no_compression(specs: Json) -> None:
    ciphertexts(specs)[0]["compression"] = "none"


def clear_input(specs: Json) -> None:
    specs["circuits"][0]["inputs"][0]["typeInfo"] = {
        "plaintext": {"shape": {"dimensions": [1, 64]}}
    }


def another_modulus(specs: Json) -> None:
    ciphertexts(specs)[0]["encryption"]["modulus"] = {"modulus": {"powerOfTwo": {"power": 32}}}


def shape_that_does_not_fit(specs: Json) -> None:
    ciphertexts(specs)[0]["concreteShape"]["dimensions"] = [1, 64, 4]


def row_without_end(specs: Json) -> None:
    for shape, words in (("abstractShape", []), ("concreteShape", [3])):
        ciphertexts(specs)[0][shape]["dimensions"] = [1, 1 << 40, *words]
    specs["circuits"][0]["inputs"][0]["rawInfo"]["shape"]["dimensions"] = [1, 1 << 40, 3]


def unknown_member(specs: Json) -> None:
    specs["circuits"][0]["extension"] = {}


HOSTILE: dict[Callable[[Json], None], str] = {
    zero_variance: "variance",
    small_variance: "below 128 bits",
    vanishing_variance: "below 128 bits",
    small_dimension: "below 128 bits",
    tiny_dimension: "dimension 400",
    ternary_key: "keyType",
    another_key: "not of the secret key",
    key_of_id(-1): "ids 0, 1, 2",
    key_of_id(1): "ids 0, 1, 2",
    key_of_id(1 << 32): "ids 0, 1, 2",
    second_key: "2 secret keys",
    bootstrap_key: "lweBootstrapKeys",
    keyswitch_key: "lweKeyswitchKeys",
    packing_key: "packingKeyswitchKeys",
    two_circuits: "2 circuits",
    no_circuit: "0 circuits",
    two_inputs: "one input",
    unknown_encoding: "encoding",
    chunked_encoding: "mode",
    unknown_compression: "compression",
    no_compression: "compression",
    clear_input: "typeInfo",
    another_modulus: "modulus",
    shape_that_does_not_fit: "do not fit",
    row_without_end: "bytes",
    unknown_member: "extension",
}


@pytest.mark.parametrize(
    ("change", "message"), HOSTILE.items(), ids=lambda x: getattr(x, "__name__", "")
)
def test_unsafe_parameters_are_refused(
    change: Callable[[Json], None], message: str, client_zip: bytes
) -> None:
    specs = copy.deepcopy(specs_of(client_zip))
    change(specs)
    hostile = rezip(client_zip, {"client.specs.json": json.dumps(specs).encode()})
    with pytest.raises(UnsafeParameters, match=message):
        open_package(hostile)


def test_parameters_on_the_curve_are_accepted_and_just_below_it_refused(client_zip: bytes) -> None:
    specs = specs_of(client_zip)
    for dimension in (600, 1000, 2000, 3000):
        with_dimension(specs, dimension)
        on_curve = smallest_safe_log2_std(dimension)
        with_variance(specs, on_curve)
        assert read_specs(json.dumps(specs).encode()).lwe_dimension == dimension
        with_variance(specs, on_curve - 0.001)
        with pytest.raises(UnsafeParameters):
            read_specs(json.dumps(specs).encode())


def test_concretes_own_parameters_lie_on_the_curve(client_zip: bytes) -> None:
    specs = read_specs(json.dumps(specs_of(client_zip)).encode())
    log2_std = math.log2(specs.input.encryption.variance) / 2
    assert log2_std == pytest.approx(smallest_safe_log2_std(specs.lwe_dimension), abs=1e-9)


def test_only_checked_members_reach_concrete(client_zip: bytes) -> None:
    raw = specs_of(client_zip)
    program = json.loads(read_specs(json.dumps(raw).encode()).program_info())
    del raw["tfhers_specs"]
    assert program == raw


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 100_000, b"\xff", b"null"])
def test_specs_that_are_not_specs_are_refused(data: bytes) -> None:
    with pytest.raises(UnsafeParameters):
        read_specs(data)


@pytest.mark.parametrize(
    "name", ["client.specs.json", "serialized_processing.json", "versions.json", "card.json"]
)
@pytest.mark.parametrize("content", [None, b"", b"{}", b"[" * 100_000])
def test_a_missing_or_damaged_member_is_refused(
    name: str, content: bytes | None, client_zip: bytes
) -> None:
    with pytest.raises(InvalidClientPackage):
        open_package(rezip(client_zip, {name: content}))


def test_another_version_of_concrete_is_refused(client_zip: bytes) -> None:
    versions = json.dumps({"concrete-python": "2.9.0", "concrete-ml": "1.9.0"}).encode()
    with pytest.raises(IncompatibleVersion, match=r"'2\.9\.0', and 2\.10\.0 is expected"):
        open_package(rezip(client_zip, {"versions.json": versions}))


def test_a_circuit_that_does_not_fit_the_card_is_refused(
    client_zip: bytes, breast_cancer_folder: Path
) -> None:
    card = (breast_cancer_folder / "card.json").read_bytes()
    with pytest.raises(InvalidClientPackage, match=r"of 59 inputs and 10 .* say 30 and 1"):
        open_package(rezip(client_zip, {"card.json": card, CIRCUIT: None}))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"estimator": "Ridge"}, "is of a classification, which a Ridge does not do"),
        ({"estimator": "MLPClassifier"}, "MLPClassifier"),
        ({"estimator": "SGDClassifier", "parameters": {"loss": 7}}, "must be log_loss or"),
        ({"estimator": "DecisionTreeClassifier"}, "does not ask for evaluation keys"),
    ],
)
def test_a_card_whose_scores_mean_nothing_is_refused(
    changes: Json, told: str, client_zip: bytes
) -> None:
    card = json.loads(read_members(client_zip, limit=1 << 30)["card.json"]) | changes
    with pytest.raises(CloisterError, match=told):
        open_package(rezip(client_zip, {"card.json": json.dumps(card).encode()}))


def test_the_features_of_a_circuit_are_those_it_lists(
    client_zip: bytes, digits_reference: Reference
) -> None:
    package = open_package(client_zip)
    np.testing.assert_array_equal(package.features, digits_reference.features)
    # Pixels that are the same in every digit have no weight.
    assert len(package.features) < package.card.data.n_features


def test_without_a_list_a_circuit_takes_every_feature(breast_cancer_folder: Path) -> None:
    archive = (breast_cancer_folder / CLIENT_ZIP).read_bytes()
    assert CIRCUIT not in read_members(archive, limit=1 << 20)
    np.testing.assert_array_equal(open_package(archive).features, np.arange(30))
    listed = json.dumps({"features": list(range(30))}).encode()
    np.testing.assert_array_equal(
        open_package(rezip(archive, {CIRCUIT: listed})).features, np.arange(30)
    )


def hostile_lists(features: list[int]) -> dict[str, Any]:
    """Lists for a circuit of as many features as these, each wrong in one way."""
    return {
        "one less": features[1:],
        "one more": sorted({*features, *range(64)} - {64})[: len(features) + 1],
        "none": [],
        "descending": features[::-1],
        "two exchanged": [features[1], features[0], *features[2:]],
        "one twice": [features[1], *features[1:]],
        "negative": [-1, *features[1:]],
        "beyond the card": [*features[:-1], 64],
        "huge": [*features[:-1], 1 << 200],
        "a fraction": [features[0], features[1] + 0.5, *features[2:]],
        "floats": [float(index) for index in features],
        "texts": [str(index) for index in features],
        "truth values": [False, True, *features[2:]],
        "nothing": None,
        "nested": [features],
        "an object": {str(index): index for index in features},
    }


@pytest.mark.parametrize("case", hostile_lists(list(range(9))))
def test_a_hostile_list_of_features_is_refused(
    case: str, client_zip: bytes, digits_reference: Reference
) -> None:
    features = hostile_lists(digits_reference.features.tolist())[case]
    hostile = rezip(client_zip, {CIRCUIT: json.dumps({"features": features}).encode()})
    with pytest.raises(InvalidClientPackage, match=CIRCUIT):
        open_package(hostile)


@pytest.mark.parametrize(
    "content",
    [None, b"", b"null", b"[]", b"{}", b"[" * 100_000, b"\xff", b'{"features": [0], "more": 1}'],
)
def test_another_member_than_a_list_of_features_is_refused(
    content: bytes | None, client_zip: bytes
) -> None:
    with pytest.raises(InvalidClientPackage):
        open_package(rezip(client_zip, {CIRCUIT: content}))


def test_a_quantiser_that_does_not_fit_the_circuit_is_refused(client_zip: bytes) -> None:
    specs = specs_of(client_zip)
    ciphertexts(specs)[0]["encoding"]["integer"]["width"] = 7
    changed = rezip(client_zip, {"client.specs.json": json.dumps(specs).encode()})
    with pytest.raises(InvalidClientPackage, match="cannot hold"):
        open_package(changed)


def test_the_pickled_type_in_the_package_is_never_looked_at(client_zip: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(client_zip)) as archive:
        processing = json.loads(archive.read("serialized_processing.json"))
    processing["model_type"] = {"type_name": "type", "serialized_value": "not even hexadecimal"}
    changed = rezip(client_zip, {"serialized_processing.json": json.dumps(processing).encode()})
    assert open_package(changed).quantiser.high == 127


def bomb(stated: int | None) -> bytes:
    """100 MB of zeros in 100 KB, stating another size than it has if asked."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("client.specs.json", bytes(100 << 20))
        if stated is not None:
            archive.infolist()[0].file_size = stated
    return stream.getvalue()


@pytest.mark.parametrize("stated", [None, 100])
def test_a_zip_bomb_is_not_unpacked(stated: int | None) -> None:
    import tracemalloc  # noqa: PLC0415 - slows down whatever runs while it is on

    hostile = bomb(stated)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidClientPackage):
            read_members(hostile, limit=32 << 20)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_many_members_together_count(client_zip: bytes) -> None:
    members = {f"member{i}": bytes(1000) for i in range(10)}
    archive = rezip(client_zip, {})
    total = sum(len(content) for content in read_members(archive, limit=1 << 20).values())
    grown = rezip(client_zip, dict(members))
    assert len(read_members(grown, limit=total + 10_000)) == 15
    with pytest.raises(InvalidClientPackage, match="more bytes"):
        read_members(grown, limit=total + 9_999)
    with pytest.raises(InvalidClientPackage, match="members"):
        read_members(rezip(client_zip, {str(i): b"" for i in range(100)}), limit=1 << 20)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_member_named_twice_is_refused() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("card.json", "one")
        archive.writestr("card.json", "other")
    with pytest.raises(InvalidClientPackage, match="twice"):
        read_members(stream.getvalue(), limit=1000)


@pytest.mark.parametrize("cut", [0, 1, 50, 1000, -1])
def test_a_damaged_archive_is_refused(cut: int, client_zip: bytes) -> None:
    with pytest.raises(InvalidClientPackage):
        read_members(client_zip[:cut], limit=1 << 20)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unknown_packing_is_refused(compression: int) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr("card.json", bytes(1000))
    with pytest.raises(InvalidClientPackage, match="packed"):
        read_members(stream.getvalue(), limit=10_000)


def test_a_client_zip_of_another_digest_is_refused(digits_service: FakeService) -> None:
    honest = digits_service.client_zip
    metadata = digits_service.metadata()
    digits_service.interceptors = [
        lambda _: httpx.Response(200, json=metadata),
        lambda _: httpx.Response(200, content=rezip(honest, {"extra": b""})),
    ]
    with pytest.raises(InvalidAnswer, match="SHA-256"):
        EncryptedModel(URL, "digits", transport=digits_service.transport)


def test_a_client_zip_that_is_not_its_etag_is_refused(digits_service: FakeService) -> None:
    answers = [
        httpx.Response(200, json=digits_service.metadata()),
        httpx.Response(200, content=digits_service.client_zip, headers={"ETag": '"0000"'}),
    ]
    digits_service.interceptors = [lambda _, answer=answer: answer for answer in answers]  # type: ignore[misc]  # the default binds the loop's value
    with pytest.raises(InvalidAnswer, match="0000"):
        EncryptedModel(URL, "digits", transport=digits_service.transport)


def test_a_client_zip_without_end_is_refused(
    digits_service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_module, "CLIENT_LIMIT", len(digits_service.client_zip) - 1)
    with pytest.raises(InvalidAnswer, match="more than"):
        EncryptedModel(URL, "digits", transport=digits_service.transport)


def test_a_reference_on_other_features_is_refused(
    digits: EncryptedModel,
    digits_service: FakeService,
    digits_reference: Reference,
    tmp_path: Path,
) -> None:
    others = digits_reference.features.copy()
    unused = np.setdiff1d(np.arange(64), others)[0]
    others[np.searchsorted(others, unused) - 1] = unused
    replace(digits_reference, features=np.sort(others)).write(tmp_path / "reference.npz")
    content = (tmp_path / "reference.npz").read_bytes()
    digits_service.interceptors = [lambda _: httpx.Response(200, content=content)]
    with pytest.raises(InvalidAnswer, match="another model"):
        digits.reference()


def test_a_damaged_reference_is_refused(
    digits: EncryptedModel, digits_service: FakeService
) -> None:
    for content in (b"", b"PK", rezip(digits_service.client_zip, {})):
        digits_service.interceptors = [lambda _, c=content: httpx.Response(200, content=c)]  # type: ignore[misc]  # as above
        with pytest.raises(InvalidAnswer, match="damaged"):
            digits.reference()
