"""The asynchronous model, beside the synchronous one."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from fake_service import FakeService, problem

from cloister_keyholder import (
    AsyncEncryptedModel,
    EncryptedModel,
    InvalidAnswer,
    InvalidResult,
    KeyholderError,
    Limits,
    RequestRefused,
    ServiceUnavailable,
)
from cloister_keyholder.encryption.circuit import Circuit, QueryKey
from cloister_keyholder.service.transport import AsyncTransport, Reply
from cloister_shared.errors import CloisterError

pytestmark = pytest.mark.timeout(120, method="thread")

URL = "http://service.test"
LIMITS = Limits(processes=1, connections=2, batch=4)
Data = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
Floats = np.ndarray[Any, Any]
Handler = Callable[[httpx.Request], httpx.Response | Awaitable[httpx.Response]]


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.fixture
def rows(breast_cancer_data: Data) -> Floats:
    found: Floats = breast_cancer_data[0][:30]
    return found


def opened(service: FakeService, handler: Any = None, **arguments: Any) -> AsyncEncryptedModel:
    return AsyncEncryptedModel(
        URL,
        service.name,
        transport=httpx.MockTransport(handler or service),
        limits=LIMITS,
        **arguments,
    )


def test_both_models_give_the_same(
    breast_cancer: EncryptedModel, breast_cancer_service: FakeService, rows: Floats
) -> None:
    async def check() -> None:
        async with opened(breast_cancer_service) as model:
            assert model.description == breast_cancer.description
            assert model.card == breast_cancer.card
            assert model.infer_url == breast_cancer.infer_url
            assert model.infer_headers == breast_cancer.infer_headers
            for name in ("predict", "predict_proba", "decision_function"):
                for some in (rows, rows[:1], rows[:0]):
                    found = await getattr(model, name)(some)
                    np.testing.assert_array_equal(found, getattr(breast_cancer, name)(some))
            quantised = model.quantise(rows)
            answers = [answer async for answer in model.ask_all(quantised)]
            expected = list(breast_cancer.ask_all(quantised))
            for answer, other in zip(answers, expected, strict=True):
                np.testing.assert_array_equal(answer.integer_scores, other.integer_scores)
            one = await model.ask(quantised[7])
            np.testing.assert_array_equal(one.integer_scores, expected[7].integer_scores)
            reference, other_reference = await model.reference(), breast_cancer.reference()
            assert reference is not None
            assert other_reference is not None
            unit = model.scale(rows)
            np.testing.assert_array_equal(
                reference.float_scores(unit), other_reference.float_scores(unit)
            )

    asyncio.run(check())


def test_a_stream_of_rows_is_taken_as_there_is_room(
    breast_cancer: EncryptedModel, breast_cancer_service: FakeService, rows: Floats
) -> None:
    taken = 0

    async def endless() -> AsyncIterator[Floats]:
        nonlocal taken
        while True:
            await asyncio.sleep(0)
            yield rows[taken % len(rows)]
            taken += 1

    async def check() -> None:
        labels = breast_cancer.predict(rows)
        async with opened(breast_cancer_service) as model:
            bound = (model._pipeline.window + 1) * LIMITS.batch
            assert bound <= 20
            stream = model.iter_predict(endless())
            for index in range(50):
                assert await anext(stream) == labels[index % len(rows)]
                assert taken - index <= bound
            await stream.aclose()
            assert [label async for label in model.iter_predict(rows)] == labels.tolist()

    asyncio.run(check())


def test_the_synchronous_model_works_in_a_running_event_loop(
    breast_cancer: EncryptedModel, breast_cancer_service: FakeService, rows: Floats
) -> None:
    expected = breast_cancer.predict(rows)

    async def notebook() -> Any:
        with EncryptedModel(
            URL, "breast_cancer", transport=breast_cancer_service.transport, limits=LIMITS
        ) as model:
            assert list(model.iter_predict(rows)) == expected.tolist()
            return model.predict(rows)

    np.testing.assert_array_equal(asyncio.run(notebook()), expected)


def test_the_event_loop_runs_on_while_rows_are_encrypted(
    breast_cancer_service: FakeService, rows: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    encrypt, decrypt = Circuit.encrypt, QueryKey.decrypt

    def encrypt_here(circuit: Circuit, *arguments: Any) -> Any:
        threads.append(threading.current_thread())
        return encrypt(circuit, *arguments)

    def decrypt_here(key: QueryKey, *arguments: Any) -> Any:
        threads.append(threading.current_thread())
        return decrypt(key, *arguments)

    monkeypatch.setattr(Circuit, "encrypt", encrypt_here)
    monkeypatch.setattr(QueryKey, "decrypt", decrypt_here)

    async def check() -> None:
        async with opened(breast_cancer_service) as model:
            await model.predict(rows)
            await model.predict(rows[:1])

    asyncio.run(check())
    assert len(threads) == 2 * (len(rows) + 1)
    assert threading.current_thread() not in threads


def test_a_cancelled_call_ends_at_once_and_the_model_goes_on(
    breast_cancer_service: FakeService, rows: Floats
) -> None:
    async def check() -> None:
        stuck, reached = True, asyncio.Event()

        async def handler(request: httpx.Request) -> httpx.Response:
            if request.method == "POST" and stuck:
                reached.set()
                await asyncio.Event().wait()
            return breast_cancer_service(request)

        async with opened(breast_cancer_service, handler) as model:
            call = asyncio.create_task(model.predict(rows))
            await reached.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            stuck = False
            assert len(await model.predict(rows)) == len(rows)

    asyncio.run(check())


def test_a_call_may_have_a_time_limit(breast_cancer_service: FakeService, rows: Floats) -> None:
    async def check() -> None:
        async with opened(breast_cancer_service) as model:
            breast_cancer_service.interceptors = [
                lambda _: problem(503, "busy", **{"Retry-After": "30"})
            ] * 99
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await model.predict(rows)

    asyncio.run(check())


def test_calls_side_by_side_do_not_mix(
    breast_cancer: EncryptedModel, breast_cancer_service: FakeService, rows: Floats
) -> None:
    async def check() -> None:
        async with opened(breast_cancer_service) as model:
            found = await asyncio.gather(*(model.decision_function(rows[i:]) for i in range(4)))
        for i, some in enumerate(found):
            np.testing.assert_array_equal(some, breast_cancer.decision_function(rows[i:]))

    asyncio.run(check())


def test_errors_are_those_of_the_synchronous_model(
    breast_cancer_service: FakeService, rows: Floats
) -> None:
    async def check() -> None:
        async with opened(breast_cancer_service) as model:
            sent = len(breast_cancer_service.requests)
            with pytest.raises(CloisterError, match="row 0, feature"):
                await model.predict(rows * 1e9)
            assert len(breast_cancer_service.requests) == sent
            breast_cancer_service.tamper = lambda result: result[:-1]
            with pytest.raises(InvalidResult):
                await model.predict(rows)
            breast_cancer_service.client_zip += b"another"
            with pytest.raises(RequestRefused):
                await model.predict(rows)
        with pytest.raises(RequestRefused):
            async with AsyncEncryptedModel(URL, "other", transport=breast_cancer_service.transport):
                pass

    asyncio.run(check())


def test_a_model_must_be_opened_first(breast_cancer_service: FakeService, rows: Floats) -> None:
    model = opened(breast_cancer_service)

    async def check() -> None:
        with pytest.raises(KeyholderError, match="async with"):
            await model.predict(rows)
        await model.aclose()

    asyncio.run(check())
    with pytest.raises(KeyholderError, match="async with"):
        _ = model.card
    assert not breast_cancer_service.requests


# --- Its transport -------------------------------------------------------------------------------


def get(handler: Handler, retry_seconds: float = 60, limit: int = 100) -> Reply:
    async def exchange() -> Reply:
        transport = AsyncTransport(
            URL,
            retry_seconds=retry_seconds,
            transport=httpx.MockTransport(handler),  # type: ignore[arg-type]  # takes both kinds
        )
        try:
            return await transport.run(transport.exchange("GET", "/x", limit=limit))
        finally:
            await transport.aclose()

    return asyncio.run(exchange())


def answers(*given: httpx.Response | Exception) -> Handler:
    left = list(given)

    def handler(_request: httpx.Request) -> httpx.Response:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return handler


def test_what_may_pass_is_tried_again() -> None:
    busy = problem(503, "busy", **{"Retry-After": "0"})
    ok = httpx.Response(200, content=b"ok")
    assert get(answers(httpx.ConnectError("refused"), busy, ok)).body == b"ok"


def test_it_ends() -> None:
    with pytest.raises(ServiceUnavailable, match=r"service\.test.*refused"):
        get(answers(httpx.ConnectError("refused")), retry_seconds=0.3)


@pytest.mark.parametrize("status", [400, 404, 409, 413, 500])
def test_an_error_is_raised_with_its_detail(status: int) -> None:
    with pytest.raises(RequestRefused, match="because"):
        get(answers(problem(status, "because")))


def test_an_answer_has_its_limit() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(100)

    with pytest.raises(InvalidAnswer, match="more than 100 bytes"):
        get(answers(httpx.Response(200, content=endless())))


def test_a_compressed_answer_is_refused() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.headers["Accept-Encoding"] == "identity"
        return httpx.Response(
            200, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(b"x")
        )

    with pytest.raises(InvalidAnswer, match="compressed"):
        get(handler)


def test_the_address_is_checked() -> None:
    with pytest.raises(KeyholderError, match="http://host:port"):
        AsyncEncryptedModel("ftp://x", "digits")
