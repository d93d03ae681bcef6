"""A model whose circuit needs evaluation keys, asked through the inference service itself."""

import io
import json
import logging
import os
import shutil
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fake_service import rezip, specs_of
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from cloister_inference.app import create_app
from cloister_inference.options import KeyOptions, Options
from cloister_keyholder import (
    EncryptedModel,
    InvalidAnswer,
    InvalidClientPackage,
    InvalidResult,
    KeyFolder,
    KeyholderError,
    KeyUnusable,
    RequestRefused,
    UnsafeParameters,
)
from cloister_keyholder.commands import keys as key_commands
from cloister_keyholder.encryption import wire
from cloister_keyholder.encryption.parameters import EVALUATION_KEYS_LIMIT
from cloister_keyholder.evaluating.evaluation import evaluate
from cloister_keyholder.evaluating.samples import HeldOut
from cloister_keyholder.keys import keyfile
from cloister_keyholder.package.content import open_package
from cloister_keyholder.settings import Settings
from cloister_shared.artifact import REFERENCE
from cloister_shared.digests import digest_bytes
from cloister_shared.registry import Registry

Floats = np.ndarray[Any, Any]
Data = tuple[Floats, np.ndarray[Any, Any]]
Json = dict[str, Any]


class Recorder(httpx.BaseTransport):
    """Passes requests to the service and keeps them; ``tamper`` changes results."""

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self.inner = inner
        self.seen: list[tuple[str, str]] = []
        self.tamper: Callable[[bytes], bytes] = lambda content: content

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.seen.append((request.method, request.url.path))
        response = self.inner.handle_request(request)
        content = response.read()
        if request.url.path.endswith("/infer") and response.status_code == 200:
            content = self.tamper(content)
        headers = {k: v for k, v in response.headers.items() if k != "content-length"}
        return httpx.Response(response.status_code, headers=headers, content=content)

    def count(self, method: str, part: str) -> int:
        return sum(1 for seen, path in self.seen if seen == method and part in path)


@pytest.fixture(scope="module")
def service(tree_artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    keys = KeyOptions(dir=tmp_path_factory.mktemp("service") / "keys")
    registry = Registry(tree_artifacts / "artifacts")
    app = create_app(registry, Options(threads=2, max_batch=4, keys=keys))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def recorder(service: TestClient) -> Recorder:
    return Recorder(service._transport)


@pytest.fixture(scope="module")
def key_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("holder") / "keys"


def open_model(recorder: Recorder, folder: Path | None, days: float = 30) -> EncryptedModel:
    return EncryptedModel(
        "http://testserver",
        "tree",
        transport=recorder,
        key_folder=KeyFolder(folder, days) if folder else None,
        retry_seconds=0,
    )


def stored(folder: Path) -> Path:
    """The folder of the one key that is kept."""
    (found,) = [path.parent for path in folder.glob("*/*/keyset")]
    return found


def test_predictions_equal_the_clear_quantised_tree(
    recorder: Recorder, key_store: Path, tree_data: Data, tree_artifacts: Path
) -> None:
    rows, clear = tree_data[0], np.load(tree_artifacts / "clear.npy")
    # One row of every leaf, and some others.
    _, first = np.unique(clear, axis=0, return_index=True)
    assert len(first) == 3
    chosen = [*first, 3, 70, 140]
    with open_model(recorder, key_store) as model:
        found = model.predict_proba(rows[chosen])
        assert np.array_equal(found, clear[chosen])
        labels = model.predict(rows[chosen])
        classes = np.array(["setosa", "versicolor", "virginica"])
        assert labels.tolist() == classes[clear[chosen].argmax(axis=1)].tolist()
    assert recorder.count("PUT", "/v2/keys/") == 1


def test_an_evaluation_compares_with_the_reference_bit_by_bit(
    recorder: Recorder, key_store: Path, tree_data: Data, tree_artifacts: Path
) -> None:
    rows, labels = tree_data[0][::30], tree_data[1][::30]
    with open_model(recorder, key_store) as model:
        held_out = HeldOut(model.card.data, rows, model.card.data.answers(labels))
        report = evaluate(model, held_out, 3)
    assert report.without_reference is None
    assert report.agreement
    assert report.agreement.model_dump() == {
        "samples": 3,
        "equal_scores": 3,
        "equal_predictions": 3,
    }
    assert report.scores
    assert report.reference_scores
    clear = np.load(tree_artifacts / "clear.npy")[::30].argmax(axis=1)
    right = clear == held_out.answers
    assert report.scores.encrypted == report.scores.clear_quantised == right[:3].mean()
    assert report.reference_scores.clear_quantised == right.mean()


def with_reference(
    inner: httpx.BaseTransport, tree_artifacts: Path, folder: Path, **changes: Any
) -> httpx.BaseTransport:
    """The service, which gives a reference with changed arrays."""
    path = Registry(tree_artifacts / "artifacts").open_current("tree").file(REFERENCE)
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    for name, change in changes.items():
        arrays[name] = change(arrays[name])
    np.savez(folder / REFERENCE, **arrays)

    class Lying(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path.endswith("/reference"):
                return httpx.Response(200, content=(folder / REFERENCE).read_bytes())
            return inner.handle_request(request)

    return Lying()


def test_a_result_that_the_reference_does_not_give_is_counted(
    recorder: Recorder, key_store: Path, tree_data: Data, tree_artifacts: Path, tmp_path: Path
) -> None:
    recorder.inner = with_reference(
        recorder.inner, tree_artifacts, tmp_path, integers=lambda one: one + 1
    )
    with open_model(recorder, key_store) as model:
        answers = model.card.data.answers(tree_data[1][:2])
        report = evaluate(model, HeldOut(model.card.data, tree_data[0][:2], answers), 2)
    assert report.agreement
    assert report.agreement.equal_scores == 0
    assert report.differing == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": lambda one: one / 2}, "of another model"),
        ({"feature": lambda one: one * 0}, "of another model"),
        ({"integers": lambda one: one[:-1]}, "damaged"),
        ({"left": lambda one: one + 1}, "damaged"),
    ],
)
def test_a_reference_of_another_tree_is_refused(
    recorder: Recorder,
    key_store: Path,
    tree_artifacts: Path,
    tmp_path: Path,
    changes: Any,
    message: str,
) -> None:
    recorder.inner = with_reference(recorder.inner, tree_artifacts, tmp_path, **changes)
    with (
        open_model(recorder, key_store) as model,
        pytest.raises(InvalidAnswer, match=message),
    ):
        model.reference()


def test_the_key_is_made_and_uploaded_once(
    recorder: Recorder, key_store: Path, tree_data: Data
) -> None:
    with open_model(recorder, key_store) as model:
        model.predict(tree_data[0][:1])
    before = stored(key_store)
    with open_model(recorder, key_store) as model:
        model.predict(tree_data[0][:2])
    assert stored(key_store) == before
    assert recorder.count("PUT", "/v2/keys/") <= 1
    assert recorder.count("GET", f"/v2/keys/{before.name}") == 2


def test_files_are_their_owners_alone_whatever_the_umask(
    recorder: Recorder, tmp_path: Path, tree_data: Data
) -> None:
    umask = os.umask(0)
    try:
        with open_model(recorder, tmp_path / "keys") as model:
            model.predict(tree_data[0][:1])
    finally:
        os.umask(umask)
    for path in (tmp_path / "keys").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_keys_that_the_service_no_longer_has_are_uploaded_again(
    service: TestClient, recorder: Recorder, key_store: Path, tree_data: Data
) -> None:
    with open_model(recorder, key_store) as model:
        first = model.predict_proba(tree_data[0][:1])
        assert service.delete(f"/v2/keys/{stored(key_store).name}").status_code == 204
        uploads = recorder.count("PUT", "/v2/keys/")
        assert np.array_equal(model.predict_proba(tree_data[0][:1]), first)
    assert recorder.count("PUT", "/v2/keys/") == uploads + 1


def test_a_model_that_is_gone_is_no_reason_to_upload(
    recorder: Recorder, key_store: Path, tree_data: Data, tree_artifacts: Path
) -> None:
    with open_model(recorder, key_store) as model:
        model.predict(tree_data[0][:1])
        uploads = recorder.count("PUT", "/v2/keys/")
        model._service._model = "/v2/models/gone"
        with pytest.raises(RequestRefused, match="of gone"):
            model.predict(tree_data[0][:1])
    assert recorder.count("PUT", "/v2/keys/") == uploads


def test_an_old_key_is_replaced_and_deleted_on_both_sides(
    service: TestClient, recorder: Recorder, tmp_path: Path, tree_data: Data
) -> None:
    with open_model(recorder, tmp_path) as model:
        clear = model.predict_proba(tree_data[0][:1])
        old = stored(tmp_path)
        with open_model(recorder, tmp_path, days=1e-9) as rotating:
            assert np.array_equal(rotating.predict_proba(tree_data[0][:1]), clear)
        assert stored(tmp_path) != old
        assert not old.exists()
        assert service.get(f"/v2/keys/{old.name}").status_code == 404
        # One that was opened before goes over to the new key.
        assert np.array_equal(model.predict_proba(tree_data[0][:1]), clear)


def test_deleting_old_keys_is_tried_again_later(
    service: TestClient, recorder: Recorder, tmp_path: Path, tree_data: Data
) -> None:
    with open_model(recorder, tmp_path) as model:
        model.predict(tree_data[0][:1])
    old = stored(tmp_path)
    inner = recorder.inner

    class Refusing(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if request.method == "DELETE":
                return httpx.Response(500, json={"detail": "broken"})
            return inner.handle_request(request)

    recorder.inner = Refusing()
    with open_model(recorder, tmp_path, days=1e-9) as model:
        model.predict(tree_data[0][:1])
    assert not (old / "keyset").exists()
    assert not (old / "evaluation_keys").exists()
    assert service.get(f"/v2/keys/{old.name}").status_code == 200
    recorder.inner = inner
    with open_model(recorder, tmp_path) as model:
        model.predict(tree_data[0][:1])
    assert not old.exists()
    assert service.get(f"/v2/keys/{old.name}").status_code == 404


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / "keyset").chmod(0o640), "others than its owner"),
        (lambda folder: (folder / "keyset").write_bytes(b"\xff" * 100), "damaged"),
        (lambda folder: (folder / "key.json").write_text("{}"), "damaged"),
        (lambda folder: (folder / "key.json").unlink(), "damaged"),
    ],
)
def test_a_key_that_cannot_be_trusted_is_refused(
    recorder: Recorder,
    tmp_path: Path,
    key_store: Path,
    tree_data: Data,
    harm: Callable[[Path], None],
    message: str,
) -> None:

    with open_model(recorder, key_store) as model:
        model.predict(tree_data[0][:1])
    shutil.copytree(key_store, tmp_path / "copy")
    harm(stored(tmp_path / "copy"))
    with (
        open_model(recorder, tmp_path / "copy") as model,
        pytest.raises(KeyUnusable, match=message),
    ):
        model.predict(tree_data[0][:1])


def test_nothing_goes_back_after_a_result_that_is_none(
    recorder: Recorder, key_store: Path, tree_data: Data, caplog: pytest.LogCaptureFixture
) -> None:
    with open_model(recorder, key_store) as model:
        model.predict(tree_data[0][:1])
        recorder.seen.clear()
        recorder.tamper = lambda content: content[:-8]
        with caplog.at_level(logging.DEBUG), pytest.raises(InvalidResult):
            model.predict(tree_data[0][:1])
        # A result that decrypts to anything is an answer like any other.
        recorder.tamper = lambda content: content[:1000] + os.urandom(8) + content[1008:]
        model.predict(tree_data[0][:1])
    assert recorder.seen == [("POST", "/v2/models/tree/versions/1/infer")] * 2


def test_what_a_tree_cannot_do_is_said(
    recorder: Recorder, key_store: Path, tree_data: Data
) -> None:
    with open_model(recorder, key_store) as model:
        with pytest.raises(KeyholderError, match="predict_proba"):
            model.decision_function(tree_data[0][:1])
        with pytest.raises(KeyUnusable, match="stored key"):
            model.encrypt(model.quantise(tree_data[0][:1])[0])
    with pytest.raises(KeyUnusable, match="CLOISTER_KEY_STORE_DIR"):
        open_model(recorder, None)


def test_a_trees_key_neither_comes_nor_goes(
    recorder: Recorder, client_zip: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "kept"
    monkeypatch.setattr(key_commands, "open_model", lambda *_: open_model(recorder, folder))
    held = keyfile.new_key_file("tree", 1, digest_bytes(client_zip), b"of another model")
    keyfile.write_key(held, tmp_path / "key.json")
    # Concrete's cache of a tree has such a file too.
    specs = open_package(client_zip).circuit.specs
    bits = np.zeros(specs.lwe_dimension, dtype=np.uint8)
    (tmp_path / "secretKey_0").write_bytes(wire.write_secret_key(specs, bits))
    for arguments in (
        ["export", tmp_path / "keyset", "--key", tmp_path / "key.json"],
        ["import", tmp_path / "secretKey_0", "--key", tmp_path / "new.json"],
    ):
        done = CliRunner().invoke(key_commands.app, list(map(str, arguments)), obj=Settings())
        assert isinstance(done.exception, KeyUnusable)
        assert "under a stored key" in str(done.exception)
    assert {path.name for path in tmp_path.iterdir()} == {"key.json", "secretKey_0"}


@pytest.fixture(scope="module")
def client_zip(tree_artifacts: Path) -> bytes:
    return (tree_artifacts / "artifacts" / "tree" / "1" / "client.zip").read_bytes()


def little_noise(kind: str) -> Callable[[Json], None]:
    def change(specs: Json) -> None:
        specs["keyset"][kind][0]["params"]["variance"] /= 4

    return change


def set_key(kind: str, **changes: Any) -> Callable[[Json], None]:
    def change(specs: Json) -> None:
        key = specs["keyset"][kind][0]
        for name, value in changes.items():
            (key if name in key else key["params"])[name] = value

    return change


def small_key(specs: Json) -> None:
    specs["keyset"]["lweSecretKeys"][1]["params"]["lweDimension"] = 300


def same_id(specs: Json) -> None:
    specs["keyset"]["lweSecretKeys"][1]["id"] = 0


def exchanged_keys(specs: Json) -> None:
    """Concrete would end the process, as a key is not of the length that its id promises."""
    specs["keyset"]["lweSecretKeys"].reverse()


def short_key(specs: Json) -> None:
    """Concrete would encrypt inputs with the key at place 3, and read past its end."""
    keys = specs["keyset"]["lweSecretKeys"]
    for id_, dimension in ((3, keys[0]["params"]["lweDimension"]), (2, 450)):
        keys.append({"id": id_, "params": keys[0]["params"] | {"lweDimension": dimension}})
    gate = specs["circuits"][0]["inputs"][0]["typeInfo"]["lweCiphertext"]
    gate["encryption"]["keyId"] = 3


def many_keys(specs: Json) -> None:
    specs["keyset"]["lweKeyswitchKeys"] *= 65


def self_key(specs: Json) -> None:
    key = specs["keyset"]["lweKeyswitchKeys"][0]
    key["outputId"] = key["inputId"]
    key["params"]["outputLweDimension"] = key["params"]["inputLweDimension"]


def large_keys(specs: Json) -> None:
    (key,) = specs["keyset"]["lweBootstrapKeys"]
    key["params"]["levelCount"] = 64
    specs["keyset"]["lweBootstrapKeys"].append(key | {"id": 1})


def output_shape(*shape: int) -> Callable[[Json], None]:
    def change(specs: Json) -> None:
        for part in (gate := specs["circuits"][0]["outputs"][0])["typeInfo"].values():
            words = part["concreteShape"]["dimensions"][-1]
            part["abstractShape"]["dimensions"] = list(shape)
            part["concreteShape"]["dimensions"] = [*shape, words]
            gate["rawInfo"]["shape"]["dimensions"] = [*shape, words]

    return change


BOOTSTRAP, KEYSWITCH = "lweBootstrapKeys", "lweKeyswitchKeys"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (little_noise(BOOTSTRAP), "below 128 bits"),
        (little_noise(KEYSWITCH), "below 128 bits"),
        (small_key, "dimension 300"),
        (same_id, "ids 0, 1, 2"),
        (exchanged_keys, "ids 0, 1, 2"),
        (short_key, "ids 0, 1, 2"),
        (set_key(BOOTSTRAP, id=1), "ids 0, 1, 2"),
        (set_key(KEYSWITCH, id=1 << 32), "ids 0, 1, 2"),
        (output_shape(1, 3), "must have the shape"),
        (output_shape(1, 3, 0), "no trees"),
        (output_shape(1, 3, 1, 1), "must have the shape"),
        (output_shape(1, 3, 1 << 20), "bytes"),
        (many_keys, "more than 64"),
        (set_key(BOOTSTRAP, keyType="ternary"), "keyType"),
        (set_key(BOOTSTRAP, compression="none"), "compression"),
        (set_key(BOOTSTRAP, inputId=7), "not of its secret keys"),
        (set_key(BOOTSTRAP, polynomialSize=64), "not of its secret keys"),
        (set_key(BOOTSTRAP, levelCount=0), "levelCount"),
        (set_key(BOOTSTRAP, extension=1), "extension"),
        (set_key(KEYSWITCH, outputId=0), "not of its secret keys"),
        (set_key(KEYSWITCH, outputLweDimension=2048), "not of its secret keys"),
        (self_key, "under itself"),
        (large_keys, str(EVALUATION_KEYS_LIMIT)),
    ],
)
def test_unsafe_evaluation_keys_are_refused(
    client_zip: bytes, change: Callable[[Json], None], message: str
) -> None:
    specs = specs_of(client_zip)
    open_package(client_zip)
    change(specs)
    with pytest.raises(UnsafeParameters, match=message):
        open_package(rezip(client_zip, {"client.specs.json": json.dumps(specs).encode()}))


def test_a_linear_model_may_not_ask_for_a_stored_key(client_zip: bytes) -> None:

    with zipfile.ZipFile(io.BytesIO(client_zip)) as archive:
        card = json.loads(archive.read("card.json"))
    card["estimator"] = "LogisticRegression"
    with pytest.raises(InvalidClientPackage, match="evaluation keys"):
        open_package(rezip(client_zip, {"card.json": json.dumps(card).encode()}))


def test_features_must_be_quantised_alike(client_zip: bytes) -> None:

    with zipfile.ZipFile(io.BytesIO(client_zip)) as archive:
        processing = json.loads(archive.read("serialized_processing.json"))
    other = json.loads(json.dumps(processing["input_quantizers"][0]))
    other["serialized_value"]["scale"]["serialized_value"] *= 2
    processing["input_quantizers"].append(other)
    with pytest.raises(InvalidClientPackage, match="equal"):
        open_package(
            rezip(client_zip, {"serialized_processing.json": json.dumps(processing).encode()})
        )


def circuit_of(client_zip: bytes) -> Json:
    with zipfile.ZipFile(io.BytesIO(client_zip)) as archive:
        found: Json = json.loads(archive.read("circuit.json"))
    return found


EDGES = "edges"


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([], "not those of its features"),
        ([[0.1], [0.2]], "not those of its features"),
        ([[]], "1 to 3 ascending edges"),
        ([[0.1, 0.2, 0.3, 0.4]], "1 to 3 ascending edges"),
        ([[0.2, 0.1]], "1 to 3 ascending edges"),
        ([[0.2, 0.2]], "1 to 3 ascending edges"),
        ([["0.2"]], "does not list"),
        ([[None]], "does not list"),
        ("0.2", "does not list"),
    ],
)
def test_edges_that_make_no_ranks_are_refused(client_zip: bytes, edges: Any, message: str) -> None:
    circuit = circuit_of(client_zip)
    assert len(circuit[EDGES]) == len(circuit["features"]) == 1
    changed = json.dumps(circuit | {EDGES: edges}).encode()
    with pytest.raises(InvalidClientPackage, match=message):
        open_package(rezip(client_zip, {"circuit.json": changed}))


def boosted_zip(client_zip: bytes, **circuit: Any) -> bytes:
    """The same circuit as one of boosted trees, a round of one tree for each class."""
    with zipfile.ZipFile(io.BytesIO(client_zip)) as archive:
        card = json.loads(archive.read("card.json"))
    card |= {"estimator": "XGBClassifier", "parameters": {"max_depth": 2, "n_estimators": 1}}
    described = circuit_of(client_zip) | circuit
    members = {"card.json": card, "circuit.json": described}
    return rezip(client_zip, {name: json.dumps(one).encode() for name, one in members.items()})


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (None, "must state the base of each output"),
        ([], "must state the base of each output"),
        ([0.5, 0.5], "must state the base of each output"),
        (["0.5", 0.5, 0.5], "does not list"),
        ([[0.5], [0.5], [0.5]], "does not list"),
        ([float("inf"), 0.5, 0.5], "does not list"),
    ],
)
def test_boosted_trees_without_what_they_add_to_are_refused(
    client_zip: bytes, base: Any, message: str
) -> None:
    with pytest.raises(InvalidClientPackage, match=message):
        open_package(boosted_zip(client_zip, base=base))


def test_other_trees_have_nothing_to_add_to(client_zip: bytes) -> None:
    changed = json.dumps(circuit_of(client_zip) | {"base": [0.0, 0.0, 0.0]}).encode()
    with pytest.raises(InvalidClientPackage, match="and of no others"):
        open_package(rezip(client_zip, {"circuit.json": changed}))


def test_boosted_trees_are_added_to_their_base(client_zip: bytes) -> None:
    plain, base = open_package(client_zip), [0.5, -1.5, 2.0]
    package = open_package(boosted_zip(client_zip, base=base))
    integers = np.arange(6).reshape(2, 3)
    scores = plain.output_scale.dequantise(integers)
    assert package.link == "softmax"
    np.testing.assert_array_equal(package.output_scale.dequantise(integers), scores + base)


def test_edges_that_are_not_finite_are_refused(client_zip: bytes) -> None:
    text = json.dumps(circuit_of(client_zip) | {EDGES: [[float("nan")]]}).encode()
    with pytest.raises(InvalidClientPackage, match="does not list"):
        open_package(rezip(client_zip, {"circuit.json": text}))


def test_ranks_are_encrypted_as_they_are(client_zip: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(client_zip)) as archive:
        processing = json.loads(archive.read("serialized_processing.json"))
    scale = processing["input_quantizers"][0]["serialized_value"]["scale"]
    scale["serialized_value"] *= 2
    with pytest.raises(InvalidClientPackage, match="ranks as they are"):
        open_package(
            rezip(client_zip, {"serialized_processing.json": json.dumps(processing).encode()})
        )


def test_an_input_is_encrypted_as_the_number_of_edges_below_it(client_zip: bytes) -> None:
    circuit = circuit_of(client_zip)
    package = open_package(client_zip)
    edges = np.array(circuit[EDGES][0])
    # Halfway between single-precision neighbours, thresholds lie between the inputs around them.
    levels = np.array([0.0, edges[0] - 1e-3, edges[0] + 1e-3, 1.0])
    inputs = np.zeros((len(levels), package.card.data.n_inputs))
    inputs[:, circuit["features"][0]] = levels
    expected = [[int((edges < level).sum())] for level in levels]
    assert package.quantise(inputs).tolist() == expected


@pytest.mark.parametrize(
    ("estimator", "parameters", "message"),
    [
        ("RandomForestClassifier", {"n_estimators": 2}, "circuit of 1 trees; .* says 2"),
        ("RandomForestClassifier", {}, "circuit of 1 trees; .* says None"),
        ("RandomForestClassifier", {"n_estimators": "1"}, "circuit of 1 trees; .* says '1'"),
        ("RandomForestClassifier", {"n_estimators": 1}, None),
        ("DecisionTreeClassifier", {"n_estimators": 2}, None),
    ],
)
def test_a_forest_has_the_trees_that_its_card_says(
    client_zip: bytes, estimator: str, parameters: Json, message: str | None
) -> None:
    with zipfile.ZipFile(io.BytesIO(client_zip)) as archive:
        card = json.loads(archive.read("card.json"))
    changed = card | {"estimator": estimator, "parameters": parameters}
    forged = rezip(client_zip, {"card.json": json.dumps(changed).encode()})
    if message is None:
        open_package(forged)
        return
    with pytest.raises(InvalidClientPackage, match=message):
        open_package(forged)
