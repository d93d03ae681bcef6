"""The dealer over HTTP."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient

from cloister_dealer.app import create_app
from cloister_dealer.deal import Deal, deal
from cloister_dealer.leases import LeaseBook
from cloister_dealer.settings import Settings
from cloister_shared.digests import digest_bytes
from cloister_shared.leasing import CLIENT_ID, Lease

SECONDS = 30.0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("dealer")
    return Settings(
        shards=2, clients=2, shards_dir=folder / "shards", held_out_dir=folder / "held-out"
    )


@pytest.fixture(scope="module")
def dealt(settings: Settings) -> Deal:
    return deal(settings)


@pytest.fixture
def dealer(settings: Settings, dealt: Deal, clock: Clock, tmp_path: Path) -> Iterator[TestClient]:
    leases = LeaseBook(tmp_path / "leases.json", dealt.digest, 2, SECONDS, clock)
    with TestClient(create_app(dealt, leases, settings.shards_dir, SECONDS)) as client:
        yield client


@pytest.fixture
def new_client(dealer: TestClient) -> Callable[[], tuple[str, Lease]]:
    """Lease a shard for a client of its own."""

    def lease() -> tuple[str, Lease]:
        client_id = uuid4().hex
        response = dealer.post("/lease", json={"client_id": client_id})
        response.raise_for_status()
        return client_id, Lease.model_validate_json(response.content)

    return lease


NewClient = Callable[[], tuple[str, Lease]]


def status_of_fetch(dealer: TestClient, client_id: str, shard: int) -> int:
    response = dealer.get(f"/shards/{shard}", headers={CLIENT_ID: client_id})
    return int(response.status_code)


def test_a_lease_names_deal_shard_digest_and_schema(dealt: Deal, new_client: NewClient) -> None:
    leases = [new_client()[1] for _ in range(2)]
    assert [lease.shard for lease in leases] == [0, 1]
    for lease in leases:
        assert lease.deal == dealt.digest
        assert lease.sha256 == dealt.shards[lease.shard].sha256
        assert lease.data == dealt.data
        assert lease.seconds == SECONDS


def test_asking_again_renews(dealer: TestClient, clock: Clock, new_client: NewClient) -> None:
    client_id, lease = new_client()
    new_client()
    for _ in range(3):
        clock.now += SECONDS - 1
        again = dealer.post("/lease", json={"client_id": client_id})
        assert Lease.model_validate_json(again.content) == lease
        assert status_of_fetch(dealer, client_id, lease.shard) == 200


def test_a_shard_is_given_to_its_holder_alone(dealer: TestClient, new_client: NewClient) -> None:
    (one, lease), (other, _) = new_client(), new_client()
    response = dealer.get(f"/shards/{lease.shard}", headers={CLIENT_ID: one})
    assert digest_bytes(response.content) == lease.sha256
    assert status_of_fetch(dealer, other, lease.shard) == 403
    for stranger in (uuid4().hex, "0" * 32):
        assert status_of_fetch(dealer, stranger, lease.shard) == 403
    for unknown in (-1, 2, 999):
        assert status_of_fetch(dealer, one, unknown) == 403


def test_a_lease_that_ran_out_gives_nothing(
    dealer: TestClient, clock: Clock, new_client: NewClient
) -> None:
    client_id, lease = new_client()
    clock.now += SECONDS
    assert status_of_fetch(dealer, client_id, lease.shard) == 403


def test_where_all_are_leased_the_answer_names_the_setting_and_when_to_come_back(
    dealer: TestClient, clock: Clock, new_client: NewClient
) -> None:
    new_client()
    clock.now += 10.5
    new_client()
    refused = dealer.post("/lease", json={"client_id": uuid4().hex})
    assert refused.status_code == 409
    assert "all 2 shards" in refused.json()["detail"]
    assert "CLOISTER_SHARDS" in refused.json()["detail"]
    assert refused.headers["Retry-After"] == "20"


def test_a_released_shard_is_free_at_once(dealer: TestClient, new_client: NewClient) -> None:
    (one, lease), _ = new_client(), new_client()
    for _ in range(2):
        assert dealer.delete(f"/lease/{one}").status_code == 204
    assert status_of_fetch(dealer, one, lease.shard) == 403
    assert new_client()[1].shard == lease.shard


@pytest.mark.parametrize("client_id", ["", "A" * 32, "0" * 31, "0" * 33, "../" + "0" * 29, None, 7])
def test_a_malformed_client_id_is_refused(dealer: TestClient, client_id: object) -> None:
    assert dealer.post("/lease", json={"client_id": client_id}).status_code == 422
    if isinstance(client_id, str):
        assert status_of_fetch(dealer, client_id, 0) == 422
    assert dealer.post("/lease", json={}).status_code == 422
    assert dealer.get("/shards/0").status_code == 422
    assert dealer.delete("/lease/nobody").status_code == 422
    assert dealer.get("/shards/a", headers={CLIENT_ID: "0" * 32}).status_code == 422


def test_health_is_answered(dealer: TestClient) -> None:
    assert dealer.get("/health").json() == {"shards": 2}
