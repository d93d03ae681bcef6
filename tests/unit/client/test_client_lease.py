"""Holding a shard of the real dealer's, over a connection that can fail."""

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from cloister_client import lease as lease_module
from cloister_client.data.shard import read_shard
from cloister_client.lease import LeasedShard, client_id, leased_shard
from cloister_dealer.app import create_app
from cloister_dealer.deal import Deal
from cloister_dealer.leases import LeaseBook
from cloister_dealer.settings import Settings
from cloister_shared.digests import digest_file
from cloister_shared.errors import CloisterError
from cloister_shared.leasing import Lease

WAIT = 30.0
"""For what must happen; nothing is asserted of how long it takes."""
OTHER = "0" * 32

Answer = Callable[[httpx.Request], httpx.Response]


class Dealer:
    """The real dealer's application behind a connection in which a test can intervene."""

    def __init__(self, service: TestClient) -> None:
        self.service = service
        self.requests: list[str] = []
        self.leases = threading.Semaphore(0)
        """Released once for every question for a lease that was answered."""
        self.intervene: Answer | None = None
        self.client = httpx.Client(
            base_url="http://dealer.test", transport=httpx.MockTransport(self._answer)
        )

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(f"{request.method} {request.url.path}")
        if self.intervene is not None:
            return self.intervene(request)
        return self.forward(request)

    def forward(self, request: httpx.Request) -> httpx.Response:
        answer = self.service.request(
            request.method, request.url.path, content=request.read(), headers=dict(request.headers)
        )
        if request.url.path == "/lease":
            self.leases.release()
        return httpx.Response(answer.status_code, content=answer.content)

    def lease(self, own_id: str = OTHER) -> httpx.Response:
        """Ask as another client."""
        response: httpx.Response = self.service.post("/lease", json={"client_id": own_id})
        return response

    def count(self, prefix: str) -> int:
        return sum(request.startswith(prefix) for request in self.requests)


MakeDealer = Callable[..., Dealer]


@pytest.fixture
def make_dealer(dealer_settings: Settings, dealt: Deal, tmp_path: Path) -> Iterator[MakeDealer]:
    made: list[Dealer] = []

    def make(told_seconds: float = WAIT, shards: int = 3) -> Dealer:
        # The dealer's own leases are long, so that a busy machine ends none before its time.
        some = dealt.model_copy(update={"shards": dealt.shards[:shards]})
        leases = LeaseBook(tmp_path / "leases.json", some.digest, shards, WAIT)
        app = create_app(some, leases, dealer_settings.shards_dir, told_seconds)
        dealer = Dealer(TestClient(app).__enter__())
        made.append(dealer)
        return dealer

    yield make
    for dealer in made:
        dealer.client.close()
        dealer.service.__exit__()


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renew long before the lease ends, so that a busy machine ends none."""
    monkeypatch.setattr(lease_module, "RENEWALS_PER_LEASE", 1000)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "RETRY_SECONDS", 0.01)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return tmp_path / "site"


def shard_number(dealer: Dealer, site: Path) -> int:
    """The shard that the dealer has down for this client."""
    return Lease.model_validate_json(dealer.lease(client_id(site)).content).shard


def test_it_holds_a_shard_that_can_be_read(
    make_dealer: MakeDealer, dealt: Deal, site: Path
) -> None:
    dealer = make_dealer()
    with leased_shard(dealer.client, site, 1) as shard:
        assert shard.folder == site
        assert digest_file(site / "shard.npz") == dealt.shards[0].sha256
        assert read_shard(site, "refuse").data == dealt.data
        assert not shard.lost.is_set()


def test_the_dealers_app_itself_can_be_passed(
    dealer_settings: Settings, dealt: Deal, tmp_path: Path, site: Path
) -> None:
    leases = LeaseBook(tmp_path / "leases.json", dealt.digest, 3, WAIT)
    with (
        TestClient(create_app(dealt, leases, dealer_settings.shards_dir, WAIT)) as dealer,
        leased_shard(dealer, site, 1),
    ):
        assert leases.holds(client_id(site), 0)


def test_it_keeps_its_shard_over_a_restart_and_leaves_no_file(
    make_dealer: MakeDealer, site: Path
) -> None:
    dealer = make_dealer()
    dealer.lease()
    for _ in range(3):
        with leased_shard(dealer.client, site, 1):
            assert shard_number(dealer, site) == 1
            assert (site / "shard.npz").is_file()
        assert not (site / "shard.npz").exists()
    assert dealer.count("GET /shards/1") == 3


def test_a_killed_client_finds_its_shard_again_and_does_not_fetch_it(
    make_dealer: MakeDealer, dealt: Deal, dealer_settings: Settings, site: Path
) -> None:
    dealer = make_dealer()
    dealer.lease()
    own = shard_number(dealer, site)
    shutil.copy(dealt.shard_path(dealer_settings.shards_dir, own), site / "shard.npz")
    dealer.service.delete(f"/lease/{OTHER}")
    with leased_shard(dealer.client, site, 1):
        assert shard_number(dealer, site) == own == 1
        assert read_shard(site, "refuse").data == dealt.data
    assert dealer.count("GET") == 0


def test_the_time_is_the_one_last_told(
    make_dealer: MakeDealer, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The dealer was started again with a shorter time, and then was heard of no more.
    monkeypatch.setattr(lease_module, "RENEWALS_PER_LEASE", 1000)
    dealer = make_dealer()
    answers = 0

    def shorten(request: httpx.Request) -> httpx.Response:
        nonlocal answers
        answers += 1
        if answers > 1:
            raise httpx.ConnectError("refused")
        lease = Lease.model_validate_json(dealer.forward(request).content)
        shorter = lease.model_copy(update={"seconds": 0.3})
        return httpx.Response(200, text=shorter.model_dump_json())

    with leased_shard(dealer.client, site, 1) as shard:
        dealer.intervene = shorten
        assert shard.lost.wait(WAIT / 2)
        dealer.intervene = None


def test_a_damaged_file_is_fetched_again(make_dealer: MakeDealer, dealt: Deal, site: Path) -> None:
    dealer = make_dealer()
    for _ in range(2):
        with leased_shard(dealer.client, site, 1):
            assert digest_file(site / "shard.npz") == dealt.shards[0].sha256
        (site / "shard.npz").write_bytes(b"damaged")
        (site / "schema.json").unlink()
    assert dealer.count("GET /shards/0") == 2


class Interrupted(BaseException):
    """Ends a process, as SystemExit does."""


@pytest.mark.parametrize("error", [None, RuntimeError, Interrupted])
def test_on_leaving_the_shard_is_free_at_once(
    make_dealer: MakeDealer, site: Path, error: type[BaseException] | None
) -> None:
    dealer = make_dealer(shards=1)
    try:
        with leased_shard(dealer.client, site, 1):
            assert dealer.lease().status_code == 409
            if error:
                raise error
    except (RuntimeError, Interrupted):
        pass
    assert dealer.lease().status_code == 200
    assert not [thread for thread in threading.enumerate() if thread.name == "lease"]


@pytest.mark.usefixtures("often")
def test_it_renews_and_bears_a_dealer_that_fails_now_and_then(
    make_dealer: MakeDealer, site: Path
) -> None:
    dealer = make_dealer()
    failures = iter(
        [
            lambda _: httpx.Response(500),
            lambda _: httpx.Response(200, text="not a lease"),
            lambda _: httpx.Response(409, text="not a refusal"),
            lambda _: (_ for _ in ()).throw(httpx.ConnectError("refused")),
        ]
    )

    def fail_at_first(request: httpx.Request) -> httpx.Response:
        return next(failures, dealer.forward)(request)

    with leased_shard(dealer.client, site, 1) as shard:
        assert dealer.leases.acquire(timeout=WAIT)
        dealer.intervene = fail_at_first
        for _ in range(3):
            assert dealer.leases.acquire(timeout=WAIT)
        assert next(failures, None) is None
        assert not shard.lost.is_set()


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("change", [{"deal": "another"}, {"shard": 2}])
def test_it_is_lost_when_the_dealer_gives_another(
    make_dealer: MakeDealer, site: Path, change: dict[str, object]
) -> None:
    dealer = make_dealer()

    def give_another(request: httpx.Request) -> httpx.Response:
        lease = Lease.model_validate_json(dealer.forward(request).content)
        return httpx.Response(200, text=lease.model_copy(update=change).model_dump_json())

    with leased_shard(dealer.client, site, 1) as shard:
        dealer.intervene = give_another
        assert shard.lost.wait(WAIT)
        dealer.intervene = None


@pytest.mark.usefixtures("often")
def test_it_is_lost_when_the_dealer_has_given_it_away(
    make_dealer: MakeDealer, site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dealer = make_dealer(shards=1)
    with leased_shard(dealer.client, site, 1) as shard:
        # To the dealer this client had gone, and another has come.
        dealer.intervene = lambda _: httpx.Response(500)
        dealer.service.delete(f"/lease/{client_id(site)}")
        assert dealer.lease().status_code == 200
        dealer.intervene = None
        assert shard.lost.wait(WAIT)
    assert "the dealer refuses it: all 1 shards are leased" in caplog.text


def test_it_is_lost_when_the_dealer_is_silent_for_as_long_as_it_lasts(
    make_dealer: MakeDealer, site: Path
) -> None:
    dealer = make_dealer(told_seconds=0.3)
    with leased_shard(dealer.client, site, 1) as shard:

        def refuse(_request: httpx.Request) -> httpx.Response:
            raise httpx.ConnectError("refused")

        dealer.intervene = refuse
        assert shard.lost.wait(WAIT)
        dealer.intervene = None


def test_it_is_lost_even_while_a_renewal_hangs(make_dealer: MakeDealer, site: Path) -> None:
    dealer = make_dealer(told_seconds=0.3)
    over = threading.Event()

    def hang(_request: httpx.Request) -> httpx.Response:
        assert over.wait(WAIT)
        raise httpx.ReadTimeout("timed out")

    with leased_shard(dealer.client, site, 1) as shard:
        dealer.intervene = hang
        lost = shard.lost.wait(WAIT / 2)
        over.set()
        dealer.intervene = None
        assert lost


@pytest.mark.usefixtures("often")
def test_it_is_renewed_while_it_is_fetched(make_dealer: MakeDealer, site: Path) -> None:
    dealer = make_dealer()

    def fetch_slowly(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            for _ in range(3):
                assert dealer.leases.acquire(timeout=WAIT)
        return dealer.forward(request)

    dealer.intervene = fetch_slowly
    with leased_shard(dealer.client, site, 1) as shard:
        assert not shard.lost.is_set()


def test_the_lease_counts_from_the_question(make_dealer: MakeDealer, site: Path) -> None:
    dealer = make_dealer()
    lease = Lease.model_validate_json(dealer.lease(client_id(site)).content)
    # Asked for so long ago that the dealer may have given it to another.
    shard = LeasedShard(dealer.client, client_id(site), site, lease, asked=-WAIT)
    try:
        assert shard.lost.wait(WAIT)
    finally:
        shard.close()


def test_a_dealer_without_a_free_shard_names_the_setting(
    make_dealer: MakeDealer, site: Path
) -> None:
    dealer = make_dealer(shards=1)
    dealer.lease()
    with (
        pytest.raises(CloisterError, match=r"all 1 shards are leased.*CLOISTER_SHARDS"),
        leased_shard(dealer.client, site, 0.05),
    ):
        pass
    assert dealer.count("POST /lease") >= 2


def test_a_shard_that_becomes_free_is_taken(make_dealer: MakeDealer, site: Path) -> None:
    dealer = make_dealer(shards=1)
    dealer.lease()

    def free_it(request: httpx.Request) -> httpx.Response:
        answer = dealer.forward(request)
        dealer.service.delete(f"/lease/{OTHER}")
        return answer

    dealer.intervene = free_it
    with leased_shard(dealer.client, site, WAIT):
        assert dealer.count("POST /lease") >= 2


@pytest.mark.parametrize(
    "answer",
    [httpx.Response(404), httpx.Response(200, text="hello"), httpx.ConnectError("refused")],
)
def test_an_address_where_no_dealer_answers_is_named(
    site: Path, answer: httpx.Response | httpx.ConnectError
) -> None:
    def handle(_request: httpx.Request) -> httpx.Response:
        if isinstance(answer, httpx.ConnectError):
            raise answer
        return answer

    with (
        httpx.Client(base_url="http://d.test", transport=httpx.MockTransport(handle)) as dealer,
        pytest.raises(CloisterError, match=r"no dealer answers at http://d\.test"),
        leased_shard(dealer, site, 0.05),
    ):
        pass


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (httpx.Response(500), "cannot be fetched"),
        (httpx.Response(200, content=b"another shard"), "not the one it leased"),
    ],
)
def test_a_shard_that_cannot_be_had_is_told_and_given_back(
    make_dealer: MakeDealer, site: Path, answer: httpx.Response, message: str
) -> None:
    dealer = make_dealer(shards=1)
    dealer.intervene = lambda request: (
        answer if request.method == "GET" else dealer.forward(request)
    )
    with pytest.raises(CloisterError, match=message), leased_shard(dealer.client, site, 1):
        pass
    assert not (site / "shard.npz").exists()
    assert dealer.lease().status_code == 200


def test_two_clients_do_not_run_on_one_folder(make_dealer: MakeDealer, site: Path) -> None:
    dealer = make_dealer()
    with leased_shard(dealer.client, site, 1) as shard:
        with (
            pytest.raises(CloisterError, match="CLOISTER_DATA_DIR"),
            leased_shard(dealer.client, site, 1),
        ):
            pass
        assert not shard.lost.is_set()
        assert shard_number(dealer, site) == 0


def test_the_id_is_its_own_and_kept(tmp_path: Path) -> None:
    ids = [client_id(tmp_path / name) for name in "abab"]
    assert ids[:2] == ids[2:]
    assert ids[0] != ids[1]


@pytest.mark.parametrize("content", [b"", b"text", b"\xff\xfe", b"0" * 31])
def test_a_damaged_id_is_made_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "client-id").write_bytes(content)
    made = client_id(tmp_path)
    assert len(made) == 32
    assert client_id(tmp_path) == made
