"""Who is let into the federation, with every service a real process over TLS on loopback."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.proto.control_pb2 import ListNodesRequest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
)
from flwr.proto.message_pb2 import Message, Metadata, ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from cloister_cli.processes import Processes, Service, free_ports
from cloister_dealer.deal import deal
from cloister_dealer.settings import Settings as DealerSettings

# The machine may be busy, and a SuperNode takes seconds to start on an idle one.
WAIT = 240.0
POLL_SECONDS = 0.5


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(POLL_SECONDS)


def clean_environment(folder: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("CLOISTER_")}
    path = os.pathsep.join([sysconfig.get_path("scripts"), kept.get("PATH", os.defpath)])
    return kept | {"PATH": path, "FLWR_HOME": str(folder / "flwr"), "PYTHONUNBUFFERED": "1"}


@dataclass
class Federation:
    """Provision, SuperLink and enrolment as processes.

    Attributes:
        root: what provision made.
        site: the folder of a site's own data.
    """

    folder: Path
    processes: Processes
    root: Path
    site: Path
    ports: list[int]
    server: Service | None = None
    starts: int = 0
    clients: list[Service] = field(default_factory=list)

    @property
    def superlink(self) -> str:
        return f"127.0.0.1:{self.ports[0]}"

    @property
    def enrolment(self) -> str:
        return f"https://127.0.0.1:{self.ports[1]}"

    @property
    def ca_path(self) -> Path:
        return self.root / "trust" / "ca.crt"

    def _certificate(self, service: str) -> dict[str, Path]:
        folder = self.root / f"{service}-tls"
        return {"tls_certificate": folder / "tls.crt", "tls_key": folder / "tls.key"}

    def start_server(self) -> None:
        self.starts += 1
        self.server = self.processes.start(
            f"server-{self.starts}",
            "cloister_server",
            port=self.ports[0],
            **self._certificate("server"),
            tls_ca=self.root / "server-tls" / "ca.crt",
            state_dir=self.folder / "state",
            superexec_secret=self.root / "control" / "superexec.secret",
        )
        self.server.wait_healthy(f"https://{self.superlink}/health", WAIT, self.ca_path)

    def stop_server(self) -> None:
        assert self.server is not None
        self.server.terminate()
        self.server.close()

    def start_enrolment(self) -> None:
        service = self.processes.start(
            "enrolment", "cloister_enrolment", port=self.ports[1], **self.enrolment_settings()
        )
        service.wait_healthy(f"{self.enrolment}/enrolment/health", WAIT, self.ca_path)

    def enrolment_settings(self) -> dict[str, object]:
        return {
            **self._certificate("enrolment"),
            "superlink": self.superlink,
            "ca_path": self.ca_path,
            "enrolment_dir": self.root / "enrolment",
        }

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run enrolment's command line to its end."""
        settings = {f"CLOISTER_{k.upper()}": str(v) for k, v in self.enrolment_settings().items()}
        return subprocess.run(
            [sys.executable, "-m", "cloister_enrolment", *arguments],
            env=clean_environment(self.folder) | settings,
            capture_output=True,
            text=True,
            check=False,
            timeout=WAIT,
        )

    def start_client(self, name: str, **changes: object) -> Service:
        settings: dict[str, object] = {
            "superlink": self.superlink,
            "ca_path": self.ca_path,
            "enrolment_url": self.enrolment,
            "join_token_path": self.root / "join" / "join.token",
            "site_name": name,
            "shard_dir": self.site,
            "data_dir": self.folder / name,
        }
        client = self.processes.start(name, "cloister_client", **(settings | changes))
        self.clients.append(client)
        return client

    def stop_clients(self) -> None:
        for client in self.clients:
            client.terminate()
        for client in self.clients:
            client.close()
        self.clients.clear()

    def states(self) -> dict[str, str]:
        """The SuperLink's state of every node, by name."""
        with (
            suppress(httpx.HTTPError),
            ControlHttpClient.from_server_address(
                self.superlink, False, self.ca_path.read_bytes(), ()
            ) as control,
        ):
            nodes = control.ListNodes(ListNodesRequest()).nodes_info
            return {node.name: node.status for node in nodes}
        return {}

    def wait_online(self, name: str) -> None:
        wait_until(lambda: self.states().get(name) == "online", f"{name} does not come online")

    def fleet(
        self, keys: tuple[ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey]
    ) -> FleetHttpClient:
        """Reach the SuperLink as a node with these keys would."""
        return FleetHttpClient.from_server_address(
            self.superlink, False, self.ca_path.read_bytes(), [NodeAuthHttpInterceptor(*keys)]
        )


def wait_log(service: Service, text: str) -> None:
    wait_until(
        lambda: text in service.log.read_text(errors="replace"),
        f"{text!r} is not in the log of {service.name}",
    )


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    folder = tmp_path_factory.mktemp("federation")
    shards = folder / "shards"
    dealt = deal(DealerSettings(shards=3, shards_dir=shards, held_out_dir=folder / "held-out"))
    site = folder / "site"
    site.mkdir()
    shutil.copy(dealt.shard_path(shards, 0), site / "shard.npz")
    (site / "schema.json").write_text(dealt.data.model_dump_json())
    root = folder / "provisioned"
    with Processes(folder, clean_environment(folder)) as processes:
        processes.start("provision", "cloister_provision", federation_dir=root).wait_done([])
        made = Federation(folder, processes, root, site, free_ports(2))
        made.start_server()
        made.start_enrolment()
        yield made


@pytest.fixture(autouse=True)
def no_clients_are_left(federation: Federation) -> Iterator[None]:
    yield
    federation.stop_clients()


@pytest.mark.timeout(900)
def test_a_site_enrols_comes_online_and_is_out_once_it_is_revoked(federation: Federation) -> None:
    client = federation.start_client("hospital-a")
    federation.wait_online("hospital-a")
    wait_log(client, "enrolled as hospital-a, node ")
    revoked = federation.command("revoke", "hospital-a")
    assert revoked.returncode == 0, revoked.stderr
    wait_log(client, "enrolment refuses this site: this site's key was revoked")
    assert federation.states()["hospital-a"] == "unregistered"
    assert re.search(r"hospital-a +revoked", federation.command("list").stdout)


@pytest.mark.timeout(900)
def test_a_wrong_token_is_refused_until_a_good_one_is_in_its_place(
    federation: Federation, tmp_path: Path
) -> None:
    token = tmp_path / "join.token"
    token.write_text(f"cloister_join_{'0' * 64}\n")
    client = federation.start_client("hospital-b", join_token_path=token)
    wait_log(client, "not enrolled yet: this join token is not known here")
    assert "hospital-b" not in federation.states()
    invited = federation.command("invite", "hospital-b")
    token.write_text(invited.stdout)
    federation.wait_online("hospital-b")
    log = client.log.read_text(errors="replace")
    assert invited.stdout.strip() not in log


@pytest.mark.timeout(900)
def test_after_a_new_database_of_the_superlink_a_site_gets_in_again(
    federation: Federation,
) -> None:
    federation.start_client("hospital-c")
    federation.wait_online("hospital-c")
    federation.stop_server()
    shutil.rmtree(federation.folder / "state")
    federation.start_server()
    federation.wait_online("hospital-c")


@pytest.mark.timeout(900)
def test_a_site_does_not_speak_to_who_its_ca_has_not_signed(
    federation: Federation, tmp_path: Path
) -> None:
    federation.processes.start(
        "other-provision", "cloister_provision", federation_dir=tmp_path / "other"
    ).wait_done([])
    client = federation.start_client("hospital-d", ca_path=tmp_path / "other" / "trust" / "ca.crt")
    wait_log(client, "CERTIFICATE_VERIFY_FAILED")
    assert "hospital-d" not in federation.states()


def test_the_superlink_speaks_tls_alone(federation: Federation) -> None:
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"http://{federation.superlink}/health")


def status(call: Callable[[], object]) -> int:
    with pytest.raises(httpx.HTTPStatusError) as refused:
        call()
    return refused.value.response.status_code


def test_an_unknown_node_is_refused_and_cannot_register_itself(federation: Federation) -> None:
    keys = generate_key_pairs()
    public = public_key_to_bytes(keys[1])
    with federation.fleet(keys) as fleet:
        activate = ActivateNodeRequest(public_key=public, heartbeat_interval=30)
        assert status(lambda: fleet.ActivateNode(activate)) == 412
        register = RegisterNodeFleetRequest(public_key=public)
        assert status(lambda: fleet.RegisterNode(register)) >= 400
        assert status(lambda: fleet.ActivateNode(activate)) == 412


@pytest.mark.timeout(900)
def test_nobody_is_a_registered_node_without_its_key(federation: Federation) -> None:
    """Its public half and its number are no secrets; neither is enough."""
    client = federation.start_client("hospital-e")
    federation.wait_online("hospital-e")
    (node,) = re.findall(r"enrolled as hospital-e, node (\d+)", client.log.read_text())
    with ControlHttpClient.from_server_address(
        federation.superlink, False, federation.ca_path.read_bytes(), ()
    ) as control:
        (public,) = [
            info.public_key
            for info in control.ListNodes(ListNodesRequest()).nodes_info
            if info.name == "hospital-e"
        ]
    pull = PullMessagesRequest(node=Node(node_id=int(node)))
    own = generate_key_pairs()
    with federation.fleet(own) as fleet:
        assert status(lambda: fleet.PullMessages(pull)) == 401
        claimed = ActivateNodeRequest(public_key=public, heartbeat_interval=30)
        assert status(lambda: fleet.ActivateNode(claimed)) == 401
    with FleetHttpClient.from_server_address(
        federation.superlink, False, federation.ca_path.read_bytes(), []
    ) as unsigned:
        assert status(lambda: unsigned.PullMessages(pull)) == 401


@pytest.mark.timeout(900)
def test_a_site_cannot_instruct_another_as_if_it_were_the_trainer(federation: Federation) -> None:
    client = federation.start_client("hospital-f")
    federation.wait_online("hospital-f")
    own = load_ssh_private_key(
        (federation.folder / "hospital-f" / "node.key").read_bytes(), password=None
    )
    assert isinstance(own, ec.EllipticCurvePrivateKey)
    keys = (own, own.public_key())
    with federation.fleet(keys) as fleet:
        (node,) = re.findall(r"enrolled as hospital-f, node (\d+)", client.log.read_text())
        for source, replies_to in ((1, ""), (1, "asked"), (int(node), "")):
            hostile = PushMessagesRequest(
                node=Node(node_id=int(node)),
                messages_list=[
                    Message(
                        metadata=Metadata(
                            src_node_id=source, dst_node_id=5, reply_to_message_id=replies_to
                        )
                    )
                ],
                message_object_trees=[ObjectTree()],
            )
            assert status(partial(fleet.PushMessages, hostile)) == 403
