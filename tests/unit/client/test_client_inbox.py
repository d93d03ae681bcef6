"""What a node answers, with a SuperLink in this process and the real work without a child."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.task_identity import TaskIdentity

from cloister_client import app as client_app
from cloister_client.node.bundle import own_bundle
from cloister_client.node.clientapp import NO_STATE, ClientApp, Task, to_job, work_of
from cloister_client.node.envelope import Envelope, open_, seal
from cloister_client.node.fleet import FailedRequestError, Fleet, Pulled, RunOverError
from cloister_client.node.inbox import Inbox
from cloister_client.node.worker import Worker, WorkerGoneError, WorkFailedError
from cloister_client.site import SHARD_DIR, NodeConfig
from cloister_shared import flower
from cloister_shared.datasets import schema
from cloister_shared.errors import CloisterError

RUN, OTHER_RUN = 11, 12


@pytest.fixture(autouse=True)
def task(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Flower sets in the process of a ServerApp."""
    for field in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, field, 1)


class LocalFleet(Fleet):
    """Hands out messages and keeps replies, as a SuperLink would."""

    def __init__(self) -> None:
        self.bundles = {RUN: own_bundle(), OTHER_RUN: own_bundle()}
        self.over: set[int] = set()
        self.waiting: list[Envelope] = []
        self.fetched: list[str] = []
        self.confirmed: list[str] = []
        self.replies: list[Message] = []
        self.calls: list[str] = []

    @property
    def node_id(self) -> int:
        return 5

    def post(self, content: RecordDict | None = None, run_id: int = RUN) -> None:
        message = Message(content or RecordDict(), dst_node_id=5, message_type="train")
        message.metadata.__dict__["_run_id"] = run_id
        self.waiting.append(seal(message))

    def pull(self) -> Pulled | None:
        if not self.waiting:
            return None
        envelope = self.waiting[0]
        return Pulled(open_(envelope.tree.object_id, envelope.objects), envelope.tree)

    def bundle_digest(self, run_id: int) -> str:
        self.calls.append("run")
        if run_id in self.over:
            raise RunOverError
        return hashlib.sha256(self.bundles[run_id]).hexdigest()

    def bundle(self, run_id: int, digest: str) -> bytes:
        self.calls.append("bundle")
        assert digest
        return self.bundles[run_id]

    def objects(self, pulled: Pulled) -> dict[str, bytes]:
        self.fetched.append(pulled.tree.object_id)
        return self.waiting[0].objects

    def confirm(self, pulled: Pulled) -> None:
        self.confirmed.append(pulled.tree.object_id)
        self.waiting.pop(0)

    def push(self, reply: Envelope, seconds: float) -> None:
        if reply.header.metadata.run_id in self.over:
            raise RunOverError
        assert seconds >= 0
        assert reply.header.metadata.message_id == reply.tree.object_id
        self.replies.append(open_(reply.tree.object_id, reply.objects))


class HereWorker(Worker):
    """Works in this process; of a real child it has the failures."""

    def __init__(self, app: ClientApp) -> None:
        self._work = work_of(app)
        self.failure: Exception | None = None

    def run(self, job: list[bytes], seconds: float) -> list[bytes]:
        assert seconds == 60.0
        if self.failure is not None:
            raise self.failure
        return self._work(job)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Site:
    """An inbox with all that it needs."""

    def __init__(self, app: ClientApp, folder: Path) -> None:
        self.fleet = LocalFleet()
        self.worker = HereWorker(app)
        self.clock = Clock()
        config: NodeConfig = {SHARD_DIR: str(folder)}
        self.inbox = Inbox(self.fleet, self.worker, config, 60.0, self.clock)

    def answer(self, content: RecordDict | None = None, run_id: int = RUN) -> Message:
        self.fleet.post(content, run_id)
        self.inbox.step()
        return self.fleet.replies.pop()


MakeSite = Callable[[ClientApp], Site]


@pytest.fixture
def make_site(tmp_path: Path) -> MakeSite:
    return lambda app: Site(app, tmp_path)


def echo(message: Message, context: Context) -> Message:
    return Message(message.content, reply_to=message)


def count(message: Message, context: Context) -> Message:
    """Reply with the number of messages of this run so far, kept as Flower's mods keep theirs."""
    record = context.state.config_records.get("count", ConfigRecord({"n": 0}))
    number = int(str(record["n"])) + 1
    context.state["count"] = ConfigRecord({"n": number})
    return Message(RecordDict({"count": ConfigRecord({"n": number})}), reply_to=message)


def counted(reply: Message) -> Any:
    return reply.content.config_records["count"]["n"]


def test_a_real_training_message_is_answered_with_weights_and_metrics(
    make_site: MakeSite,
    write_site: Callable[..., Path],
    digits_data: tuple[Any, Any],
    tmp_path: Path,
) -> None:
    folder = write_site(digits_data[0][:200], digits_data[1][:200])
    site = Site(client_app.app, folder)
    config = ConfigRecord(
        {
            flower.SCHEMA_DIGEST: schema("digits").digest,
            flower.ESTIMATOR: "LogisticRegression",
            flower.PARAMETERS: json.dumps({"max_iter": 5, "warm_start": True}),
            flower.OUT_OF_BOUNDS: "refuse",
        }
    )
    zeros = {flower.COEF: Array(np.zeros((10, 64))), flower.INTERCEPT: Array(np.zeros(10))}
    reply = site.answer(RecordDict({flower.ARRAYS: ArrayRecord(zeros), flower.CONFIG: config}))
    assert reply.content.array_records[flower.ARRAYS][flower.COEF].numpy().any()
    assert reply.content.metric_records[flower.METRICS][flower.EXAMPLES] == 180
    assert site.fleet.confirmed == [reply.metadata.reply_to_message_id]


def test_every_line_about_a_message_tells_its_run(
    make_site: MakeSite, json_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    def refuse(message: Message, context: Context) -> Message:
        raise CloisterError("not here")

    site = make_site(refuse)
    site.answer(run_id=RUN)
    site.answer(run_id=OTHER_RUN)
    lines = [(line["logger"].rpartition(".")[2], line["run_id"]) for line in json_lines()]
    told = ["clientapp", "inbox"]
    assert lines == [(logger, run) for run in (RUN, OTHER_RUN) for logger in told]


def test_a_child_tells_its_run_by_itself(json_lines: Callable[[], list[dict[str, Any]]]) -> None:
    config: NodeConfig = {SHARD_DIR: "/nowhere"}
    damaged = Task(RUN, 5, "message", {}, NO_STATE, config)
    work_of(echo)(to_job(damaged))
    (line,) = json_lines()
    assert (line["message"], line["run_id"]) == ("the ClientApp failed", RUN)


def test_run_and_bundle_are_asked_for_once_a_run(make_site: MakeSite) -> None:
    site = make_site(echo)
    for _ in range(3):
        assert site.answer().has_content()
    assert site.fleet.calls == ["run", "bundle"]


def test_every_message_of_a_run_with_another_bundle_is_refused_and_none_is_fetched(
    make_site: MakeSite,
) -> None:
    site = make_site(echo)
    site.fleet.bundles[OTHER_RUN] = b"hostile"
    for _ in range(2):
        reply = site.answer(run_id=OTHER_RUN)
        assert reply.error.code == ErrorCode.INVALID_FAB
        assert "code of its own image only" in str(reply.error.reason)
    assert site.fleet.fetched == []
    # Told by its digest: it is not even transferred.
    assert site.fleet.calls == ["run"]
    assert site.answer().has_content()


def test_a_bundle_that_is_not_the_one_it_is_said_to_be_is_refused(
    make_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(echo)
    monkeypatch.setattr(site.fleet, "bundle", lambda *_: b"hostile")
    assert site.answer().error.code == ErrorCode.INVALID_FAB
    assert site.fleet.fetched == []


def test_what_the_app_keeps_is_there_at_the_next_message_of_the_same_run_alone(
    make_site: MakeSite,
) -> None:
    site = make_site(count)
    assert [counted(site.answer()) for _ in range(3)] == [1, 2, 3]
    assert counted(site.answer(run_id=OTHER_RUN)) == 1
    assert counted(site.answer()) == 4


def test_what_it_keeps_is_forgotten_when_the_run_is_over(make_site: MakeSite) -> None:
    site = make_site(count)
    site.answer()
    site.answer(run_id=OTHER_RUN)
    site.fleet.over = {RUN}
    site.clock.now += 61
    site.inbox.step()
    site.fleet.over = set()
    assert counted(site.answer()) == 1
    assert counted(site.answer(run_id=OTHER_RUN)) == 2


def test_of_many_runs_the_oldest_is_forgotten(make_site: MakeSite) -> None:
    site = make_site(count)
    site.fleet.bundles |= dict.fromkeys(range(20, 30), own_bundle())
    for run_id in [RUN, *range(20, 30)]:
        assert counted(site.answer(run_id=run_id)) == 1
    assert counted(site.answer(run_id=29)) == 2
    assert counted(site.answer(run_id=RUN)) == 1


def test_a_run_that_is_over_is_left_alone(make_site: MakeSite) -> None:
    site = make_site(count)
    site.fleet.post()
    site.fleet.over = {RUN}
    site.inbox.step()
    assert site.fleet.replies == []


def fail(error: BaseException) -> ClientApp:
    def app(message: Message, context: Context) -> Message:
        raise error

    return app


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CloisterError("give the sites the same dataset"), "give the sites the same dataset"),
        (MemoryError(), "there is not enough memory for it at this site"),
        (
            ValueError("cannot convert 'Smith' to float"),
            "it failed with ValueError; the site's log has more",
        ),
    ],
)
def test_an_app_that_raises_is_an_error_whose_reason_quotes_no_value(
    make_site: MakeSite, error: Exception, reason: str
) -> None:
    reply = make_site(fail(error)).answer()
    assert (reply.error.code, reply.error.reason) == (
        ErrorCode.CLIENT_APP_RAISED_EXCEPTION,
        reason,
    )


def test_a_message_whose_parts_are_damaged_is_an_error(
    make_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(echo)
    monkeypatch.setattr(site.fleet, "objects", lambda _: {"a": b"no object"})
    assert site.answer().error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION


def test_a_child_that_dies_is_an_error_and_the_state_is_as_before(
    make_site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    site = make_site(count)
    site.answer()
    site.worker.failure = WorkFailedError("its process was killed, probably for want of memory")
    reply = site.answer()
    assert reply.error.code == ErrorCode.CLIENT_APP_CRASHED
    # Why is for the site's own log: it may depend on the rows.
    assert "the site's own log says why" in str(reply.error.reason)
    assert "memory" not in str(reply.error.reason)
    assert "want of memory" in caplog.text
    site.worker.failure = None
    assert counted(site.answer()) == 2


def test_without_its_worker_it_answers_with_an_error_and_ends(make_site: MakeSite) -> None:
    site = make_site(echo)
    site.worker.failure = WorkerGoneError("gone")
    site.fleet.post()
    with pytest.raises(WorkerGoneError):
        site.inbox.step()
    assert site.fleet.replies[0].error.code == ErrorCode.CLIENT_APP_CRASHED


def test_a_message_that_the_superlink_has_lost_is_given_up(
    make_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(echo)

    def lost(pulled: Pulled) -> dict[str, bytes]:
        raise FailedRequestError("lost")

    monkeypatch.setattr(site.fleet, "objects", lost)
    site.fleet.post()
    assert site.inbox.step() > 0
    assert site.fleet.replies == []


def pauses_until(site: Site, gap: float) -> list[float]:
    """Pauses from an answer until this much time has passed."""
    site.fleet.post()
    pauses, end = [site.inbox.step()], site.clock.now + gap
    while site.clock.now + pauses[-1] < end:
        site.clock.now += pauses[-1]
        pauses.append(site.inbox.step())
    site.clock.now = end
    return pauses


def test_it_asks_often_after_a_message_and_ever_more_seldom_without_one(
    make_site: MakeSite,
) -> None:
    site = make_site(echo)
    pauses = pauses_until(site, 60.0)
    assert pauses[0] == 0.2
    assert pauses == sorted(pauses)
    assert pauses[-1] == 3.0
    assert sum(pause < 3.0 for pause in pauses) < 25


def test_it_does_not_ask_before_a_message_can_be_expected(make_site: MakeSite) -> None:
    site = make_site(echo)
    first = pauses_until(site, 5.0)
    second = pauses_until(site, 5.0)
    assert first[0] == 0.2
    assert 2.5 <= second[0] <= 3.0
    assert max(second[1:]) <= 1.2
    assert len(second) < 0.6 * len(first)


def test_one_short_time_between_messages_makes_it_ask_soon_again(make_site: MakeSite) -> None:
    site = make_site(echo)
    for gap in (5.0, 0.1, 5.0, 5.0):
        pauses_until(site, gap)
    assert pauses_until(site, 5.0)[0] == 0.2
