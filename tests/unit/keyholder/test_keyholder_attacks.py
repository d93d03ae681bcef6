"""Two attacks that work, and what of them is left against this key holder.

The weights of a linear model, from one result: nothing here protects them from a key holder. The
key, from decrypted results of a service's own making: it takes several results under one key, with
what came out of them, and here a key opens one and nothing goes back.
"""

import math
import re
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from fake_service import FakeService
from lwe_definition import mask

from cloister_keyholder import EncryptedModel, InvalidResult, KeyUnusable, Limits
from cloister_keyholder.encryption import wire
from cloister_keyholder.encryption.circuit import Circuit
from cloister_keyholder.encryption.client import ClientSetting, SecretKey
from cloister_keyholder.encryption.parameters import ClientSpecs
from cloister_keyholder.package.content import open_package
from cloister_shared.linear import LinearCircuit
from cloister_shared.reference import Reference

URL = "http://service.test"
SETTINGS: list[ClientSetting] = ["native", "concrete"]

Words = npt.NDArray[np.uint64]


@pytest.fixture(params=SETTINGS)
def circuit(request: pytest.FixtureRequest, digits_service: FakeService) -> Circuit:
    return open_package(digits_service.client_zip, request.param).circuit


def masks(ciphertexts: bytes, n: int) -> Words:
    """The masks of seeded ciphertexts, which anybody can expand, shape (n_features, n)."""
    seeds = (ciphertexts[at : at + 16] for at in range(0, len(ciphertexts), 24))
    return np.array([mask(seed, n) for seed in seeds])


def solve(equations: Words, values: Words) -> Words:
    """Solve modulo 2^64 by elimination; there are more equations than unknowns.

    Args:
        equations: shape (n_equations, n_unknowns).
        values: shape (n_equations, n).
    """
    n_unknowns = equations.shape[1]
    system = np.hstack([equations, values])
    for column in range(n_unknowns):
        odd = column + int(np.flatnonzero(system[column:, column] % 2)[0])
        system[[column, odd]] = system[[odd, column]]
        system[column] *= np.uint64(pow(int(system[column, column]), -1, 1 << 64))
        others = np.arange(len(system)) != column
        system[others] -= system[others, column, None] * system[column]
    return system[:n_unknowns, n_unknowns:]


# --- The model, by the key holder ----------------------------------------------------------------


def test_one_result_gives_the_exact_weights_of_a_linear_model(
    circuit: Circuit, digits_service: FakeService
) -> None:
    specs = circuit.specs
    n, m = specs.lwe_dimension, specs.n_outputs
    head, tail = wire.input_envelope(specs)
    # Any row will do, and no key is needed.
    query = circuit.encrypt(np.zeros(specs.n_features, dtype=np.int64))
    sent = query.ciphertext[len(head) : -len(tail)]
    result = digits_service.run(query.ciphertext)
    received = np.frombuffer(wire.result_ciphertexts(result, specs), "<u8").reshape(m, n + 1)

    enough = specs.n_features + 64
    weights = solve(masks(sent, enough).T.copy(), received[:, :enough].T.copy())
    bodies = np.frombuffer(sent, dtype="<u8").reshape(-1, 3)[:, 2]
    encoded = received[:, -1] - (bodies[:, None] * weights).sum(axis=0, dtype=np.uint64)

    linear = LinearCircuit.read(digits_service.folder / "linear.npz")
    np.testing.assert_array_equal(weights.astype(np.int64), linear.weights)
    np.testing.assert_array_equal(encoded, linear.encoded_bias)


# --- The key, by the service ---------------------------------------------------------------------


def crafted(specs: ClientSpecs, template: bytes, first: int) -> bytes:
    """A result whose scores are bits of the key, from bit ``first`` on.

    Every output has masks that are powers of two in the places of some bits, else zero: its
    phase is minus the number that these bits make.
    """
    head, tail = (len(part) for part in wire.input_envelope(specs))
    words = np.zeros((specs.n_outputs, specs.lwe_dimension + 1), dtype=np.uint64)
    unit = 63 - specs.output.encoding.integer.width
    for output in range(specs.n_outputs):
        for place in range(bits_a_score(specs)):
            at = first + output * bits_a_score(specs) + place
            if at < specs.lwe_dimension:
                words[output, at] = 1 << (unit + place)
    return template[:head] + words.astype("<u8").tobytes() + template[len(template) - tail :]


def bits_a_score(specs: ClientSpecs) -> int:
    # Of the others it is a matter of the sign which they were.
    return specs.output.encoding.integer.width - 2


def bits_in(specs: ClientSpecs, scores: npt.NDArray[np.int64]) -> list[int]:
    """Read the bits of the key off the scores of a crafted result."""
    places = range(bits_a_score(specs))
    return [int(-score) >> place & 1 for score in scores for place in places]


def test_a_key_that_is_used_again_is_lost_in_a_few_results(
    circuit: Circuit, digits_service: FakeService
) -> None:
    """Against the bare clients, Concrete's own among them, whose scores are given away."""
    specs = circuit.specs
    key: SecretKey = circuit.client.new_key()
    row = np.zeros(specs.n_features, dtype=np.int64)
    template = digits_service.run(key.encrypt(row))
    found: list[int] = []
    results = 0
    while len(found) < specs.lwe_dimension:
        found += bits_in(specs, key.decrypt(crafted(specs, template, len(found))))
        results += 1
    secret = wire.read_keyset(key.export(), specs)
    assert found[: specs.lwe_dimension] == secret.tolist()
    assert results == math.ceil(specs.lwe_dimension / (10 * bits_a_score(specs))) <= 10


def test_a_querys_key_opens_one_result(circuit: Circuit, digits_service: FakeService) -> None:
    query = circuit.encrypt(np.zeros(circuit.specs.n_features, dtype=np.int64))
    template = digits_service.run(query.ciphertext)
    query.decrypt(crafted(circuit.specs, template, 0))
    with pytest.raises(KeyUnusable):
        query.decrypt(crafted(circuit.specs, template, 170))


@pytest.mark.parametrize("setting", SETTINGS)
def test_what_one_result_gives_away_is_of_no_use_for_the_next(
    setting: ClientSetting, digits_service: FakeService, digits_data: Any
) -> None:
    """Even who were told all scores would get a part of a new key each time."""
    with EncryptedModel(URL, "digits", transport=digits_service.transport, client=setting) as model:
        specs = open_package(digits_service.client_zip).circuit.specs
        digits_service.tamper = lambda result: crafted(specs, result, 0)
        rows = model.quantise(digits_data[0][:20])
        told = [bits_in(specs, answer.integer_scores) for answer in model.ask_all(rows)]
    differing = np.mean([np.not_equal(told[0], other).mean() for other in told[1:]])
    assert 0.45 < differing < 0.55


def with_words(specs: ClientSpecs, template: bytes, words: bytes) -> bytes:
    """A result of the right form around any words."""
    head, tail = (len(part) for part in wire.input_envelope(specs))
    assert len(words) == specs.result_data_bytes
    return template[:head] + words + template[len(template) - tail :]


def test_the_form_alone_decides_whether_a_result_is_refused(
    circuit: Circuit, digits_service: FakeService
) -> None:
    """Were it the scores, as by a check of their range, refusals would tell of the key."""
    specs = circuit.specs
    keys = [circuit.client.new_key() for _ in range(4)]
    template = digits_service.run(keys[0].encrypt(np.zeros(specs.n_features, dtype=np.int64)))
    contents = {
        "zeros": bytes(specs.result_data_bytes),
        "ones": b"\xff" * specs.result_data_bytes,
        **{
            f"random {seed}": np.random.default_rng(seed).bytes(specs.result_data_bytes)
            for seed in range(8)
        },
    }
    for key in keys:
        for name, words in contents.items():
            result = with_words(specs, template, words)
            assert key.decrypt(result).shape == (specs.n_outputs,), name
            for damaged in (result[:-8], result + bytes(8), result[:-8] + bytes(8)):
                with pytest.raises(InvalidResult):
                    key.decrypt(damaged)


def with_ids_by_place(requests: list[httpx.Request]) -> list[Any]:
    """What a service sees of requests, their random ids told by where each came first."""
    places: dict[str, int] = {}
    seen = []
    for request in requests:
        headers = dict(request.headers)
        drawn = headers.pop("x-request-id")
        assert re.fullmatch(r"[0-9a-f]{32}", drawn)
        place = places.setdefault(drawn, len(places))
        content = len(request.read())
        seen.append((request.method, request.url.path, place, sorted(headers.items()), content))
    return seen


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("count", [1, 12])
def test_the_service_sees_the_same_whatever_it_answers(
    count: int, setting: ClientSetting, digits_service: FakeService, digits_data: Any
) -> None:
    specs = open_package(digits_service.client_zip).circuit.specs
    answers: dict[str, Any] = {
        "good": lambda result: result,
        "crafted": lambda result: crafted(specs, result, 0),
        "random": lambda result: with_words(
            specs, result, np.random.default_rng(0).bytes(specs.result_data_bytes)
        ),
        "damaged": lambda result: result[:-8] + bytes(8),
        "short": lambda result: result[:-8],
    }
    seen = {}
    for name, tamper in answers.items():
        digits_service.tamper = tamper
        digits_service.requests.clear()
        limits = Limits(processes=1, connections=1, batch=4)
        with EncryptedModel(
            URL, "digits", transport=digits_service.transport, client=setting, limits=limits
        ) as model:
            if name in ("good", "crafted", "random"):
                model.predict(digits_data[0][:count])
                model.predict_proba(digits_data[0][:count])
            else:
                with pytest.raises(InvalidResult):
                    model.predict(digits_data[0][:count])
        seen[name] = with_ids_by_place(digits_service.requests)
    assert seen["good"] == seen["crafted"] == seen["random"]
    # What cannot be opened ends the call: no request tells why, and there are none after those that
    # were on their way.
    for name in ("damaged", "short"):
        assert seen[name] == seen["good"][: len(seen[name])]


def test_a_reference_is_what_the_weights_are_anyway(digits_service: FakeService) -> None:
    reference = Reference.read(digits_service.folder / "reference.npz")
    linear = LinearCircuit.read(digits_service.folder / "linear.npz")
    np.testing.assert_array_equal(reference.weights, linear.weights)
