"""Many rows at once: order, equality, bounds, retries, and answers that are not to be trusted."""

import json
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from fake_service import FakeService, elements_of, framed, problem
from hypothesis import given
from hypothesis import strategies as st

from cloister_keyholder import (
    EncryptedModel,
    InvalidAnswer,
    InvalidResult,
    InvalidSamples,
    KeyholderError,
    Limits,
    RequestRefused,
    ServiceUnavailable,
)
from cloister_keyholder.querying.slots import Slots
from cloister_keyholder.service.batch import HEADER_LIMIT, answer_limit, pack, unpack
from cloister_shared.open_inference import HEADER_LENGTH, decode_elements, encode_elements
from cloister_shared.reference import Reference

pytestmark = pytest.mark.timeout(120, method="thread")

URL = "http://service.test"
Data = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
Handler = Callable[[httpx.Request], httpx.Response]
Floats = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def opened(
    service: FakeService, handler: Handler | None = None, retry_seconds: float = 60, **limits: int
) -> EncryptedModel:
    return EncryptedModel(
        URL,
        service.name,
        transport=httpx.MockTransport(handler or service),
        retry_seconds=retry_seconds,
        limits=Limits(**{"processes": 1, **limits}),
    )


def posts(service: FakeService) -> list[httpx.Request]:
    return [request for request in service.requests if request.method == "POST"]


def ciphertexts(request: httpx.Request) -> list[bytes]:
    return elements_of(request) if HEADER_LENGTH in request.headers else [request.content]


@pytest.fixture
def rows(breast_cancer_data: Data) -> Floats:
    found: Floats = breast_cancer_data[0][:50]
    return found


@pytest.fixture
def clear(
    rows: Floats, breast_cancer: EncryptedModel, breast_cancer_reference: Reference
) -> Floats:
    """The integer scores of ``rows``, computed in the clear."""
    found: Floats = breast_cancer_reference.integer_scores(breast_cancer.quantise(rows))
    return found


def scores(model: EncryptedModel, rows: Floats) -> Floats:
    return np.vstack([answer.integer_scores for answer in model.ask_all(model.quantise(rows))])


@pytest.mark.parametrize(("connections", "batch"), [(1, 1), (1, 50), (2, 7), (4, 16), (9, 3)])
def test_batches_give_the_clear_scores_in_the_order_of_the_rows(
    connections: int,
    batch: int,
    breast_cancer_service: FakeService,
    rows: Floats,
    clear: Floats,
) -> None:
    assert len(np.unique(clear)) > 40
    with opened(breast_cancer_service, connections=connections, batch=batch) as model:
        np.testing.assert_array_equal(scores(model, rows), clear)
        sizes = [len(ciphertexts(request)) for request in posts(breast_cancer_service)]
        assert sum(sizes) == len(rows)
        assert max(sizes) <= batch
        assert len(sizes) >= connections
        np.testing.assert_array_equal(model.decision_function(rows), model.dequantise(clear)[:, 0])


def test_a_batch_has_ciphertexts_in_it_each_of_its_own_key_and_nothing_else(
    breast_cancer_service: FakeService, rows: Floats
) -> None:
    with opened(breast_cancer_service, connections=2, batch=5) as model:
        model.predict(np.repeat(rows[:1], 20, axis=0))
    sent = posts(breast_cancer_service)
    found = [ciphertext for request in sent for ciphertext in ciphertexts(request)]
    length = breast_cancer_service.details.circuit.input_bytes
    assert [len(ciphertext) for ciphertext in found] == [length] * 20
    # Seeds and bodies, behind the envelope.
    assert len({ciphertext[64:] for ciphertext in found}) == 20
    for request in sent:
        framing, body = pack(ciphertexts(request))
        assert request.content == body
        assert request.headers[HEADER_LENGTH] == framing[HEADER_LENGTH]
        assert request.headers["Cloister-Client-Digest"] == breast_cancer_service.digest


def test_answers_say_what_they_took(breast_cancer_service: FakeService, rows: Floats) -> None:
    with opened(breast_cancer_service, connections=1, batch=4) as model:
        answers = list(model.ask_all(model.quantise(rows[:10])))
    assert [answer.queries for answer in answers] == [4] * 8 + [2] * 2
    assert {answer.server_ms for answer in answers} == {1.5}
    assert all(answer.encrypt_ms > 0 and answer.decrypt_ms > 0 for answer in answers)
    assert answers[0].request_ms == answers[3].request_ms != answers[4].request_ms


@pytest.mark.parametrize(("takes", "batch"), [(3, 16), (1, 16), (5, 6)])
def test_a_batch_that_is_too_large_is_cut_and_the_size_remembered(
    takes: int, batch: int, breast_cancer_service: FakeService, rows: Floats, clear: Floats
) -> None:
    breast_cancer_service.max_batch = takes
    with opened(breast_cancer_service, connections=1, batch=batch) as model:
        np.testing.assert_array_equal(scores(model, rows), clear)
        before = len(posts(breast_cancer_service))
        np.testing.assert_array_equal(scores(model, rows[:20]), clear[:20])
        later = posts(breast_cancer_service)[before:]
        assert max(len(ciphertexts(request)) for request in later) <= takes


def test_one_query_that_is_too_large_is_refused(
    breast_cancer_service: FakeService, rows: Floats
) -> None:
    with opened(breast_cancer_service, connections=1, batch=4) as model:
        breast_cancer_service.interceptors = [lambda _: problem(413, "no")] * 9
        with pytest.raises(RequestRefused) as caught:
            model.predict(rows[:8])
        assert caught.value.status == 413
        assert [len(ciphertexts(request)) for request in posts(breast_cancer_service)][-1] == 1


def test_requests_shrink_where_the_service_takes_long(
    breast_cancer_service: FakeService, rows: Floats, clear: Floats
) -> None:
    def slow(request: httpx.Request) -> httpx.Response:
        response = breast_cancer_service(request)
        # Two seconds each: five would be the most that is asked for in one request.
        if request.method == "POST":
            count = len(ciphertexts(request))
            response.headers["Server-Timing"] = f"evaluate;dur={2000 * count}"
        return response

    with opened(breast_cancer_service, slow, connections=1, batch=8) as model:
        np.testing.assert_array_equal(scores(model, rows), clear)
        sizes = [len(ciphertexts(request)) for request in posts(breast_cancer_service)]
    assert sizes[0] == 8
    assert set(sizes[3:]) == {2}


def restarting(_request: httpx.Request) -> httpx.Response:
    raise httpx.ReadError("connection reset")


def refused(_request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


def busy(_request: httpx.Request) -> httpx.Response:
    return problem(503, "busy", **{"Retry-After": "0"})


@pytest.mark.parametrize("failures", [[busy], [restarting, refused], [restarting, refused, busy]])
def test_a_batch_outlasts_a_restart_and_keeps_its_place(
    failures: list[Handler], breast_cancer_service: FakeService, rows: Floats, clear: Floats
) -> None:
    with opened(breast_cancer_service, connections=2, batch=4) as model:
        breast_cancer_service.interceptors = [*failures]
        np.testing.assert_array_equal(scores(model, rows), clear)
    bodies = [request.content for request in posts(breast_cancer_service)]
    # What failed was sent again as it was, under the keys it had.
    assert len(bodies) - len(set(bodies)) == len(failures)


def test_a_service_that_stays_away_is_given_up(
    breast_cancer_service: FakeService, rows: Floats
) -> None:
    with opened(breast_cancer_service, retry_seconds=0, connections=2, batch=4) as model:
        breast_cancer_service.interceptors = [refused] * 99
        with pytest.raises(ServiceUnavailable):
            model.predict(rows)


def test_a_refusal_in_the_middle_ends_the_rest(
    breast_cancer_service: FakeService, rows: Floats
) -> None:
    count = 0

    def handler(request: httpx.Request) -> httpx.Response:
        nonlocal count
        count += request.method == "POST"
        return problem(409, "another version") if count >= 3 else breast_cancer_service(request)

    with opened(breast_cancer_service, handler, connections=2, batch=2) as model:
        answered = []
        with pytest.raises(RequestRefused):
            answered += list(model.ask_all(model.quantise(rows)))
        # Of 25 requests, no more than were under way.
        assert count <= 3 + model._pipeline.window


def test_no_more_requests_than_connections_and_no_fewer(
    breast_cancer_service: FakeService, rows: Floats, clear: Floats
) -> None:
    running, most, lock = 0, 0, threading.Lock()
    both = threading.Barrier(2)

    def handler(request: httpx.Request) -> httpx.Response:
        nonlocal running, most
        if request.method != "POST":
            return breast_cancer_service(request)
        with lock:
            running += 1
            most = max(most, running)
        # Broken where a second request does not come while the first is being answered.
        both.wait(30)
        try:
            return breast_cancer_service(request)
        finally:
            with lock:
                running -= 1

    with opened(breast_cancer_service, handler, connections=2, batch=5) as model:
        np.testing.assert_array_equal(scores(model, rows[:40]), clear[:40])
    assert most == 2


def test_rows_are_taken_as_there_is_room(
    breast_cancer_service: FakeService, rows: Floats, clear: Floats
) -> None:
    taken = 0

    def endless() -> Iterator[Floats]:
        nonlocal taken
        while True:
            yield rows[taken % len(rows)]
            taken += 1

    with opened(breast_cancer_service, connections=2, batch=3) as model:
        labels = model.predict(rows)
        bound = (model._pipeline.window + 1) * 3
        assert bound <= 15
        stream = model.iter_predict(endless())
        for index in range(70):
            assert next(stream) == labels[index % len(rows)]
            assert taken - index <= bound
        sent = sum(len(ciphertexts(request)) for request in posts(breast_cancer_service))
        assert sent - len(rows) - 70 <= bound
        stream.close()  # type: ignore[attr-defined]  # a generator


def test_a_row_of_a_stream_that_does_not_fit_is_named(
    breast_cancer_service: FakeService, rows: Floats
) -> None:
    bad = rows.copy()
    bad[20, 3] = np.nan
    with (
        opened(breast_cancer_service, connections=2, batch=3) as model,
        pytest.raises(InvalidSamples, match="row 20 of the stream"),
    ):
        list(model.iter_predict(bad))


def test_a_stream_that_ends_in_a_part_of_a_batch_is_whole(
    breast_cancer_service: FakeService, rows: Floats
) -> None:
    with opened(breast_cancer_service, connections=2, batch=3) as model:
        labels = model.predict(rows)
        for count in (0, 1, 2, 3, 4, 50):
            assert list(model.iter_predict(iter(rows[:count]))) == labels[:count].tolist()


def test_one_model_serves_several_threads(
    breast_cancer_service: FakeService, rows: Floats, clear: Floats
) -> None:
    with opened(breast_cancer_service, connections=2, batch=4) as model:
        found: dict[int, Floats] = {}
        threads = [
            threading.Thread(target=lambda i=i: found.update({i: scores(model, rows[i:])}))
            for i in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for i in range(3):
        np.testing.assert_array_equal(found[i], clear[i:])


def test_an_interrupted_stream_ends_while_the_service_is_away(
    breast_cancer_service: FakeService, rows: Floats
) -> None:
    with opened(breast_cancer_service, connections=2, batch=3) as model:

        def interrupted() -> Iterator[Floats]:
            yield from rows[:6]
            breast_cancer_service.interceptors = [refused] * 1000
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            list(model.iter_predict(interrupted()))


def test_a_closed_model_encrypts_nothing(breast_cancer_service: FakeService, rows: Floats) -> None:
    model = opened(breast_cancer_service)
    model.predict(rows[:3])
    model.close()
    model.close()
    with pytest.raises(KeyholderError, match="open the model again"):
        model.predict(rows[:3])


@pytest.mark.parametrize("limits", [{"processes": 0}, {"connections": 0}, {"batch": -1}])
def test_limits_are_positive(limits: dict[str, int]) -> None:
    with pytest.raises(KeyholderError, match="at least 1"):
        Limits(**limits)


# --- Answers of a service that is broken or hostile ---------------------------------------------


def change_header(**changes: Any) -> Callable[[httpx.Response], httpx.Response]:
    """Change the output of an answer's JSON header."""

    def change(response: httpx.Response) -> httpx.Response:
        length = int(response.headers[HEADER_LENGTH])
        header = json.loads(response.content[:length])
        header["outputs"][0].update(changes)
        encoded = json.dumps(header).encode()
        return httpx.Response(
            200,
            content=encoded + response.content[length:],
            headers={HEADER_LENGTH: str(len(encoded))},
        )

    return change


def results_of(response: httpx.Response) -> list[bytes]:
    data = response.content[int(response.headers[HEADER_LENGTH]) :]
    header = json.loads(response.content[: int(response.headers[HEADER_LENGTH])])
    return decode_elements(data, header["outputs"][0]["shape"][0])


def change_results(
    change: Callable[[list[bytes]], list[bytes]],
) -> Callable[[httpx.Response], httpx.Response]:
    return lambda response: framed(change(results_of(response)))


def stated_length(length: str | None) -> Callable[[httpx.Response], httpx.Response]:
    headers = {} if length is None else {HEADER_LENGTH: length}
    return lambda response: httpx.Response(200, content=response.content, headers=headers)


def data_before_header(response: httpx.Response) -> httpx.Response:
    length = int(response.headers[HEADER_LENGTH])
    content = response.content[length:] + response.content[:length]
    return httpx.Response(200, content=content, headers={HEADER_LENGTH: str(length)})


def first_length(add: int) -> Callable[[httpx.Response], httpx.Response]:
    """Let the first element claim another length."""

    def change(response: httpx.Response) -> httpx.Response:
        start = int(response.headers[HEADER_LENGTH])
        content = bytearray(response.content)
        (length,) = struct.unpack_from("<I", content, start)
        struct.pack_into("<I", content, start, (length + add) % (1 << 32))
        headers = {HEADER_LENGTH: str(start)}
        return httpx.Response(200, content=bytes(content), headers=headers)

    return change


HOSTILE: dict[str, Callable[[httpx.Response], httpx.Response]] = {
    "a result fewer": change_results(lambda results: results[:-1]),
    "a result more": change_results(lambda results: [*results, results[0]]),
    "no results": change_results(lambda _: []),
    "an empty result": change_results(lambda results: [b"", *results[1:]]),
    "a short result": change_results(lambda results: [results[0][:-8], *results[1:]]),
    "a long result": change_results(lambda results: [results[0] + bytes(8), *results[1:]]),
    "two in one": change_results(lambda results: [results[0] + results[1], b"", *results[2:]]),
    "all in the first": change_results(lambda results: [b"".join(results)] + [b""] * 3),
    "a huge result": change_results(lambda results: [bytes(1 << 24), *results[1:]]),
    "a fewer stated": change_header(shape=[3]),
    "a more stated": change_header(shape=[5]),
    "negative": change_header(shape=[-4]),
    "no number": change_header(shape=["4"]),
    "two dimensions": change_header(shape=[2, 2]),
    "another name": change_header(name="scores"),
    "another type": change_header(datatype="INT64"),
    "a byte fewer stated": change_header(parameters={"binary_data_size": 1}),
    "no size": change_header(parameters={}),
    "data in the header": change_header(parameters={}, data=["AAAA"] * 4),
    "a header without end": change_header(x="x" * HEADER_LIMIT),
    "no header length": stated_length(None),
    "header of no bytes": stated_length("0"),
    "header to the end": stated_length("999999"),
    "header length no number": stated_length("-1"),
    "header length of many digits": stated_length("9" * 5000),
    "data before header": data_before_header,
    "first element longer": first_length(1),
    "first element shorter": first_length(-1),
    "first element of 4 GiB": first_length(-(1 << 20)),
    "one raw result": lambda response: httpx.Response(200, content=results_of(response)[0]),
    "empty": lambda _: httpx.Response(200, content=b""),
    "a page": lambda _: httpx.Response(200, html="<html>"),
    "cut": lambda response: httpx.Response(
        200, content=response.content[:-1], headers={HEADER_LENGTH: response.headers[HEADER_LENGTH]}
    ),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_answer_to_a_batch_is_refused(
    change: Callable[[httpx.Response], httpx.Response],
    breast_cancer_service: FakeService,
    rows: Floats,
) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        response = breast_cancer_service(request)
        return change(response) if request.method == "POST" else response

    with opened(breast_cancer_service, handler, connections=1, batch=4) as model:
        with pytest.raises(InvalidAnswer):
            model.predict(rows[:8])
        sent = posts(breast_cancer_service)
    # A failure is not answered with anything: a request under way beside the first, at most.
    assert len(sent) <= 2


def test_a_result_that_is_none_fails_the_call_and_its_key_is_gone(
    breast_cancer_service: FakeService, rows: Floats
) -> None:
    breast_cancer_service.tamper = lambda result: result[:-8] + bytes(8)[:-1]
    with opened(breast_cancer_service, connections=1, batch=4) as model:
        with pytest.raises(InvalidResult):
            model.predict(rows[:8])
        breast_cancer_service.tamper = lambda result: result
        assert len(model.predict(rows[:8])) == 8


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_what_is_packed_is_an_answer_in_the_same_form(elements: list[bytes]) -> None:
    response = framed(elements)
    assert unpack(response.headers, response.content, len(elements)) == elements
    longest = max((len(element) for element in elements), default=0)
    assert len(response.content) <= answer_limit(len(elements), longest)
    framing, body = pack(elements)
    length = int(framing[HEADER_LENGTH])
    assert body[length:] == encode_elements(elements)
    (tensor,) = json.loads(body[:length])["inputs"]
    assert tensor["shape"] == [len(elements)]
    assert tensor["parameters"]["binary_data_size"] == len(body) - length


@given(
    st.lists(st.binary(max_size=40), min_size=1, max_size=5),
    st.integers(0, 400),
    st.binary(min_size=1, max_size=4),
)
def test_a_changed_answer_has_as_many_results_or_is_refused(
    elements: list[bytes], position: int, change: bytes
) -> None:
    response = framed(elements)
    content = response.content[:position] + change + response.content[position + len(change) :]
    try:
        results = unpack(response.headers, content, len(elements))
    except InvalidAnswer:
        return
    assert len(results) == len(elements)


def test_slots_are_given_back_and_given_up() -> None:
    slots = Slots(2)
    first, second, third, fourth = (slots.acquire() for _ in range(4))
    assert [slot.done() for slot in (first, second, third, fourth)] == [True, True, False, False]
    slots.release(third)
    assert third.cancelled()
    slots.release(first)
    assert fourth.done()
    assert not fourth.cancelled()
    slots.release(second)
    slots.release(fourth)
    assert [slots.acquire().done() for _ in range(3)] == [True, True, False]
