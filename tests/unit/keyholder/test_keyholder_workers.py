"""Processes that encrypt: what they give, how they end, and what is left of them."""

import gc
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_service import FakeService, elements_of, serve
from hypothesis import given
from hypothesis import strategies as st

from cloister_keyholder import (
    EncryptedModel,
    InvalidResult,
    KeyholderError,
    KeyUnusable,
    Limits,
    RequestRefused,
    WorkerLost,
)
from cloister_keyholder.encryption.circuit import Circuit
from cloister_keyholder.package.content import open_package
from cloister_keyholder.workers import pool as pool_module
from cloister_keyholder.workers import process as process_module
from cloister_keyholder.workers.channel import Channel, Kind, Message
from cloister_keyholder.workers.encryptor import Encryptor, LocalEncryptor
from cloister_keyholder.workers.pool import Encryptors, Pool, Sealed, discard
from cloister_keyholder.workers.process import ProcessEncryptor
from cloister_shared.open_inference import HEADER_LENGTH
from cloister_shared.reference import Reference

pytestmark = pytest.mark.timeout(120, method="thread")

URL = "http://service.test"
Data = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def children() -> set[int]:
    """Processes of this one that are alive or were not waited for."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(after_name[1]) == os.getpid():
            found.add(int(stat.parent.name))
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    threads, processes = set(threading.enumerate()), children()
    yield
    assert set(threading.enumerate()) <= threads
    assert children() <= processes


@pytest.fixture(scope="module")
def circuit(breast_cancer_folder: Path) -> Circuit:
    """Under Concrete's client, which alone has processes."""
    return open_package((breast_cancer_folder / "client.zip").read_bytes(), "concrete").circuit


@pytest.fixture
def encryptor(circuit: Circuit, request: pytest.FixtureRequest) -> Iterator[Encryptor]:
    made: Encryptor = request.param(circuit)
    try:
        made.start()
        yield made
    finally:
        made.close()


BOTH = pytest.mark.parametrize("encryptor", [LocalEncryptor, ProcessEncryptor], indirect=True)
ROW = np.arange(30, dtype=np.int64)


@BOTH
def test_a_row_comes_back_as_its_scores(
    encryptor: Encryptor,
    breast_cancer_service: FakeService,
    breast_cancer_reference: Reference,
) -> None:
    rows = np.vstack([ROW, ROW[::-1]])
    clear = breast_cancer_reference.integer_scores(rows)
    queries = [encryptor.encrypt(row) for row in rows]
    length = breast_cancer_service.details.circuit.input_bytes
    assert {len(query.ciphertext) for query in queries} == {length}
    assert all(query.milliseconds > 0 for query in queries)
    # In the other order: each result is opened with the key of its own query.
    for query, expected in reversed(list(zip(queries, clear, strict=True))):
        opened = encryptor.decrypt(query.ticket, breast_cancer_service.run(query.ciphertext))
        np.testing.assert_array_equal(opened.integer_scores, expected)
        assert opened.milliseconds > 0


@BOTH
def test_a_key_opens_one_result(encryptor: Encryptor, breast_cancer_service: FakeService) -> None:
    query = encryptor.encrypt(ROW)
    result = breast_cancer_service.run(query.ciphertext)
    with pytest.raises(InvalidResult):
        encryptor.decrypt(query.ticket, result[:-8])
    with pytest.raises(KeyUnusable):
        encryptor.decrypt(query.ticket, result)
    query = encryptor.encrypt(ROW)
    result = breast_cancer_service.run(query.ciphertext)
    encryptor.decrypt(query.ticket, result)
    with pytest.raises(KeyUnusable):
        encryptor.decrypt(query.ticket, result)


@BOTH
def test_a_discarded_key_is_gone(encryptor: Encryptor, breast_cancer_service: FakeService) -> None:
    query = encryptor.encrypt(ROW)
    encryptor.discard(query.ticket)
    encryptor.discard(query.ticket)
    with pytest.raises(KeyUnusable):
        encryptor.decrypt(query.ticket, breast_cancer_service.run(query.ciphertext))


@BOTH
@pytest.mark.parametrize("row", [ROW[:-1], np.full(30, 1 << 40), np.full(30, -(1 << 40))])
def test_a_row_that_does_not_fit_is_refused(
    row: np.ndarray[Any, Any], encryptor: Encryptor
) -> None:
    with pytest.raises(KeyholderError, match=r"shape|must lie in"):
        encryptor.encrypt(row)
    assert encryptor.encrypt(ROW).ciphertext


@BOTH
def test_every_row_has_another_key(encryptor: Encryptor) -> None:
    queries = [encryptor.encrypt(ROW) for _ in range(5)]
    assert len({query.ciphertext for query in queries}) == 5
    assert len({query.ticket for query in queries}) == 5


@pytest.fixture
def costly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every row be worth a process."""
    monkeypatch.setattr(pool_module, "WORTH_SECONDS", 1e-6)


@pytest.fixture
def model(breast_cancer_service: FakeService, costly: None) -> Iterator[EncryptedModel]:
    limits = Limits(processes=2, connections=2, batch=4)
    transport = breast_cancer_service.transport
    with EncryptedModel(
        URL, "breast_cancer", transport=transport, limits=limits, client="concrete"
    ) as opened:
        yield opened


def test_a_batch_by_processes_gives_the_clear_scores(
    model: EncryptedModel,
    breast_cancer_service: FakeService,
    breast_cancer_reference: Reference,
    breast_cancer_data: Data,
) -> None:
    before = children()
    quantised = model.quantise(breast_cancer_data[0][:40])
    found = np.vstack([answer.integer_scores for answer in model.ask_all(quantised)])
    np.testing.assert_array_equal(found, breast_cancer_reference.integer_scores(quantised))
    workers = children() - before
    assert len(workers) == 2
    # They stay for the next rows.
    model.predict(breast_cancer_data[0][:10])
    assert children() - before == workers
    bodies = [
        body
        for request in breast_cancer_service.requests
        if request.method == "POST"
        for body in (
            elements_of(request) if HEADER_LENGTH in request.headers else [request.content]
        )
    ]
    length = breast_cancer_service.details.circuit.input_bytes
    assert [len(body) for body in bodies] == [length] * 50
    model.close()
    assert children() == before


def test_one_process_means_this_one(
    breast_cancer_service: FakeService, costly: None, breast_cancer_data: Data
) -> None:
    before = children()
    with EncryptedModel(
        URL,
        "breast_cancer",
        transport=breast_cancer_service.transport,
        limits=Limits(processes=1),
        client="concrete",
    ) as model:
        model.predict(breast_cancer_data[0][:20])
        assert children() == before


def test_processes_start_when_they_are_worth_it(circuit: Circuit) -> None:
    before = children()
    encryptors = Encryptors(circuit, None, processes=3)
    try:
        # 30 features at a key of about 1,400 bits take some 4 ms.
        assert encryptors.for_rows(1).size == 1
        assert encryptors.for_rows(100).size == 1
        assert children() == before
        assert encryptors.for_rows(1000).size == 2
        assert encryptors.for_rows(1_000_000).size == 3
        # Once there, they serve fewer rows too; a single one is faster without.
        assert encryptors.for_rows(2).size == 3
        assert encryptors.for_rows(1).size == 1
    finally:
        encryptors.close()


def workers_of(model: EncryptedModel) -> list[int]:
    return [worker.encryptor.pid for worker in model._pipeline._encryptors._processes._workers]  # type: ignore[attr-defined]  # a process has a number


def both_at_work(pool: Pool) -> list[Sealed]:
    """Encrypt until both of a pool's processes have; return what they encrypted."""
    sealed: list[Sealed] = []
    while len({id(query._worker) for query in sealed}) < 2:
        sealed += [future.result() for future in [pool.encrypt(ROW) for _ in range(4)]]
    return sealed


def test_killed_workers_fail_their_batch_and_not_the_next(
    model: EncryptedModel, breast_cancer_data: Data
) -> None:
    rows = breast_cancer_data[0][:40]
    labels = model.predict(rows)
    for query in both_at_work(model._pipeline._encryptors._processes):
        query.discard()
    answers = model.ask_all(model.quantise(rows))
    next(answers)
    for pid in workers_of(model):
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerLost, match=r"SIGKILL.*CLOISTER_PROCESSES"):
        list(answers)
    np.testing.assert_array_equal(model.predict(rows), labels)


def test_a_killed_worker_takes_its_own_keys_alone(
    circuit: Circuit, breast_cancer_service: FakeService, breast_cancer_reference: Reference
) -> None:
    pool = Pool(partial(ProcessEncryptor, circuit), partial(LocalEncryptor, circuit))
    pool.staff(2)
    try:
        (clear,) = breast_cancer_reference.integer_scores(ROW[None])
        sealed = both_at_work(pool)
        killed = pool._workers[0]
        os.kill(killed.encryptor.pid, signal.SIGKILL)  # type: ignore[attr-defined]  # a process has a number
        for query in sealed:
            opening = query.decrypt(breast_cancer_service.run(query.ciphertext))
            if query._worker is killed:
                with pytest.raises(WorkerLost, match="SIGKILL"):
                    opening.result()
            else:
                np.testing.assert_array_equal(opening.result().integer_scores, clear)
        assert pool.size == 1
        assert pool.encrypt(ROW).result().ciphertext
        os.kill(pool._workers[0].encryptor.pid, signal.SIGKILL)  # type: ignore[attr-defined]  # as above
        with pytest.raises(WorkerLost):
            pool.encrypt(ROW).result()
        assert pool.size == 0
        with pytest.raises(WorkerLost):
            pool.encrypt(ROW)
        pool.staff(1)
        assert pool.encrypt(ROW).result().ciphertext
    finally:
        pool.close()


def test_a_worker_that_hangs_is_given_up(circuit: Circuit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "ANSWER_SECONDS", 10.0)
    encryptor = ProcessEncryptor(circuit)
    try:
        encryptor.start()
        encryptor._channel._connection.settimeout(0.5)
        os.kill(encryptor.pid, signal.SIGSTOP)
        with pytest.raises(WorkerLost, match="said nothing"):
            encryptor.encrypt(ROW)
        assert not is_alive(encryptor.pid)
    finally:
        encryptor.close()


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ((sys.executable, "-c", "raise SystemExit(3)"), "exit code 3"),
        (("/nowhere/python",), "No such file"),
    ],
)
def test_where_no_process_starts_rows_are_encrypted_in_this_one(
    command: tuple[str, ...],
    reason: str,
    circuit: Circuit,
    breast_cancer_service: FakeService,
    breast_cancer_reference: Reference,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pool = Pool(partial(ProcessEncryptor, circuit, command), partial(LocalEncryptor, circuit))
    try:
        pool.staff(2)
        sealed = [future.result() for future in [pool.encrypt(ROW) for _ in range(6)]]
        (clear,) = breast_cancer_reference.integer_scores(ROW[None])
        for query in sealed:
            opened = query.decrypt(breast_cancer_service.run(query.ciphertext)).result()
            np.testing.assert_array_equal(opened.integer_scores, clear)
    finally:
        pool.close()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "in this process alone" in record.message
    assert reason in record.message


def test_a_frozen_program_is_not_started_over(
    circuit: Circuit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(OSError, match="no Python interpreter"):
        ProcessEncryptor(circuit)


def test_a_closed_pool_drops_what_waits(circuit: Circuit) -> None:
    pool = Pool(partial(LocalEncryptor, circuit), partial(LocalEncryptor, circuit))
    pool.staff(1)
    first = pool.encrypt(ROW).result()
    waiting = [pool.encrypt(ROW) for _ in range(200)]
    pool.close()
    assert waiting[-1].cancelled()
    with pytest.raises(KeyUnusable):
        first.decrypt(b"").result()
    with pytest.raises(KeyholderError):
        pool.encrypt(ROW)


def test_discarded_rows_leave_no_key(circuit: Circuit) -> None:
    encryptor = LocalEncryptor(circuit)
    pool = Pool(lambda: encryptor, lambda: encryptor)
    pool.staff(1)
    try:
        futures = [pool.encrypt(ROW) for _ in range(20)]
        futures[0].result()
        for future in futures:
            discard(future)
        # One more, behind all that was asked for before.
        kept = pool.encrypt(ROW).result()
        deadline = time.monotonic() + 30
        while len(encryptor._keys) > 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(encryptor._keys) == 1
        kept.discard()
        with pytest.raises(KeyUnusable):
            kept.decrypt(b"")
    finally:
        pool.close()


@pytest.mark.parametrize("error", [InvalidResult, RequestRefused])
def test_a_failed_batch_leaves_no_key(
    error: type[KeyholderError], breast_cancer_service: FakeService, breast_cancer_data: Data
) -> None:
    with EncryptedModel(
        URL,
        "breast_cancer",
        transport=breast_cancer_service.transport,
        limits=Limits(processes=1, connections=2, batch=4),
    ) as model:
        if error is InvalidResult:
            breast_cancer_service.tamper = lambda result: result[:-1]
        else:
            breast_cancer_service.client_zip += b"another"
        with pytest.raises(error):
            model.predict(breast_cancer_data[0][:40])
        (worker,) = model._pipeline._encryptors._local._workers
        deadline = time.monotonic() + 30
        while worker.encryptor._keys and time.monotonic() < deadline:  # type: ignore[attr-defined]  # a LocalEncryptor
            time.sleep(0.01)
        assert not worker.encryptor._keys  # type: ignore[attr-defined]  # as above


def test_a_model_that_is_forgotten_leaves_no_processes(
    breast_cancer_service: FakeService, costly: None, breast_cancer_data: Data
) -> None:
    before = children()
    model = EncryptedModel(
        URL,
        "breast_cancer",
        transport=breast_cancer_service.transport,
        limits=Limits(processes=2),
        client="concrete",
    )
    model.predict(breast_cancer_data[0][:8])
    assert len(children() - before) == 2
    del model
    gc.collect()
    assert children() == before


# --- Messages ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def channels() -> Iterator[tuple[Channel, Channel]]:
    ends = socket.socketpair()
    for end in ends:
        end.settimeout(10)
    first, second = (Channel(end) for end in ends)
    yield first, second
    first.close()
    second.close()


@given(
    st.sampled_from(Kind),
    st.binary(max_size=2000),
    st.integers(0, 2**64 - 1),
    st.floats(allow_nan=False),
)
def test_messages_arrive_as_they_were_sent(
    channels: tuple[Channel, Channel], kind: Kind, payload: bytes, ticket: int, ms: float
) -> None:
    sent = Message(kind, payload, ticket, ms)
    channels[0].send(sent)
    assert channels[1].receive() == sent
    assert repr(sent) == f"Message({kind.name}, {len(payload)} bytes)"


@pytest.mark.parametrize("cut", [0, 1, 20, 24, 25, 30])
def test_a_message_that_breaks_off_is_an_end(cut: int) -> None:
    first, second = socket.socketpair()
    whole, copy = socket.socketpair()
    Channel(whole).send(Message(Kind.ENCRYPT, bytes(10)))
    whole.close()
    data = copy.recv(1000)
    copy.close()
    assert len(data) > cut
    first.sendall(data[:cut])
    first.close()
    with pytest.raises(EOFError):
        Channel(second).receive()
    second.close()


# --- As programs ---------------------------------------------------------------------------------

SCRIPT = """
import os, sys, time
import numpy as np
from cloister_keyholder import EncryptedModel, Limits
from cloister_keyholder.workers import pool
pool.WORTH_SECONDS = 1e-6
rows = np.load(sys.argv[2])
model = EncryptedModel(sys.argv[1], "breast_cancer", limits=Limits(2, batch=4), client="concrete")
print(*model.predict(rows), sep="\\n", flush=True)
workers = model._pipeline._encryptors._processes._workers
print("workers", *(worker.encryptor.pid for worker in workers), flush=True)
"""
"""No guard of __main__, and no close."""


@pytest.fixture
def script(
    tmp_path: Path, breast_cancer_service: FakeService, breast_cancer_data: Data
) -> Iterator[list[str]]:
    (tmp_path / "script.py").write_text(SCRIPT)
    # What a worker would import by mistake, were it to look in the working folder.
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong module')")
    rows = tmp_path / "rows.npy"
    np.save(rows, breast_cancer_data[0][:12])
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "script.py").write_text(SCRIPT)
    with serve(breast_cancer_service) as url:
        yield [sys.executable, str(tmp_path / "elsewhere" / "script.py"), url, str(rows)]


def worker_pids(line: str) -> list[int]:
    name, *pids = line.split()
    assert name == "workers"
    return [int(pid) for pid in pids]


def wait_for_end(pids: list[int]) -> None:
    deadline = time.monotonic() + 30
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(is_alive, pids))


def test_a_script_without_a_guard_works_and_leaves_nothing(
    script: list[str], tmp_path: Path, breast_cancer: EncryptedModel, breast_cancer_data: Data
) -> None:
    done = subprocess.run(
        script, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    *labels, last = done.stdout.splitlines()
    assert labels == breast_cancer.predict(breast_cancer_data[0][:12]).tolist()
    assert len(worker_pids(last)) == 2
    wait_for_end(worker_pids(last))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_program(
    how: signal.Signals, script: list[str], tmp_path: Path
) -> None:
    path = Path(script[1])
    path.write_text(
        SCRIPT + "\nfor _ in model.iter_predict(rows[i % 12] for i in range(10**9)): pass\n"
    )
    with subprocess.Popen(
        script,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        lines = [program.stdout.readline() for _ in range(13)]
        pids = worker_pids(lines[-1])
        assert all(map(is_alive, pids))
        time.sleep(0.2)
        # As a terminal does it: to all of the group.
        os.killpg(program.pid, how)
        errors = program.stderr.read()
    assert program.returncode == -how
    if how == signal.SIGINT:
        # Its own traceback, and none of a worker.
        assert errors.rstrip().endswith("KeyboardInterrupt")
        assert "worker.py" not in errors
    wait_for_end(pids)
