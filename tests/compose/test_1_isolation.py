"""Who mounts what and who reaches whom, as Compose understands compose.yaml."""

import re
from pathlib import Path
from typing import Any

import pytest
from stack import Stack

READ, WRITE = "read", "write"
ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
SITE = ROOT / "docker" / "site.compose.yaml"


def isolation() -> dict[str, tuple[dict[str, str], set[str]]]:
    """Volumes and networks of each service, as the README's table has them."""
    lines = iter(README.read_text().splitlines())
    for line in lines:
        if line == "| service | reads | writes | networks |":
            break
    next(lines)
    table = {}
    for line in lines:
        if not line.startswith("|"):
            break
        service, reads, writes, networks = (cell.strip() for cell in line.strip("|").split("|"))
        volumes = dict.fromkeys(filter(None, reads.split(", ")), READ)
        volumes |= dict.fromkeys(filter(None, writes.split(", ")), WRITE)
        table[service] = (volumes, set(networks.split(", ")) - {"none"})
    return table


ISOLATION = isolation()


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return Stack().config()


def test_there_are_no_other_services(config: dict[str, Any]) -> None:
    assert set(config["services"]) == set(ISOLATION)


@pytest.mark.parametrize("service", ISOLATION)
def test_mounts(config: dict[str, Any], service: str) -> None:
    mounts = config["services"][service]["volumes"]
    volumes = {
        mount.get("source", "(its own)"): READ if mount.get("read_only") else WRITE
        for mount in mounts
        if mount["type"] == "volume"
    }
    assert volumes == ISOLATION[service][0]
    binds = [mount for mount in mounts if mount["type"] == "bind"]
    # The files of the host's that anything sees: a user's MNIST, rows, schema and certificates, and
    # a key holder's API key.
    files = {"gateway": ["/tls.pem"], "keyholder": ["/api-key"], "trainer": ["/schema.json"]}
    files |= {"dealer": ["/mnist.npz", "/rows", "/schema.json"]}
    files |= {"provision": ["/own/tls.crt", "/own/tls.key", "/own/ca.crt"]}
    assert [mount["target"] for mount in binds] == files.get(service, [])
    assert all(mount["read_only"] for mount in binds)


@pytest.mark.parametrize("service", ISOLATION)
def test_networks(config: dict[str, Any], service: str) -> None:
    described = config["services"][service]
    networks = set(described.get("networks") or ())
    assert networks == ISOLATION[service][1]
    if not networks:
        assert described["network_mode"] == "none"


def test_only_the_dealer_reaches_the_outside(config: dict[str, Any]) -> None:
    networks = config["networks"]
    assert networks["federation"]["internal"]
    assert networks["fleet"]["internal"]
    assert networks["control"]["internal"]
    assert networks["serving"]["internal"]
    assert networks["backend"]["internal"]
    assert networks["watch"]["internal"]
    masquerade = "com.docker.network.bridge.enable_ip_masquerade"
    for published in ("edge", "console"):
        assert networks[published]["driver_opts"][masquerade] == "false"


def test_only_these_are_published_and_only_on_loopback(config: dict[str, Any]) -> None:
    published = {
        name: [port["host_ip"] for port in service["ports"]]
        for name, service in config["services"].items()
        if service.get("ports")
    }
    names = ("gateway", "fleet", "console", "prometheus")
    assert published == {name: ["127.0.0.1"] for name in names}


def on(config: dict[str, Any], network: str) -> set[str]:
    """Services that have joined a network."""
    return {
        name
        for name, service in config["services"].items()
        if network in (service.get("networks") or {})
    }


def test_key_holders_and_inference_meet_at_the_gateway_alone(config: dict[str, Any]) -> None:
    assert on(config, "serving") == {"keyholder", "gateway"}
    assert on(config, "backend") == {"inference", "gateway", "prometheus"}
    assert on(config, "edge") == {"gateway", "fleet", "prometheus"}


def test_the_console_meets_nobody_and_its_page_may_query_the_service() -> None:
    stack = Stack()
    stack.settings(console_port=18081, api_port=18001)
    config = stack.config()
    assert on(config, "console") == {"console"}
    inference, console = (
        config["services"][name]["environment"] for name in ("inference", "console")
    )
    assert inference["CLOISTER_CORS_ORIGINS"] == "http://127.0.0.1:18081,http://localhost:18081"
    assert console["CLOISTER_URL"] == "http://127.0.0.1:18001"


def test_sites_and_superlink_meet_at_the_fleets_address_alone(config: dict[str, Any]) -> None:
    assert on(config, "federation") == {"client", "dealer", "fleet"}
    assert on(config, "fleet") == {"fleet", "server", "enrolment"}
    assert on(config, "control") == {"server", "trainer", "enrolment", "sites"}


def test_prometheus_meets_only_what_it_scrapes_and_is_no_way_between_them(
    config: dict[str, Any],
) -> None:
    described = config["services"]["prometheus"]
    met = set().union(*(on(config, network) for network in described["networks"]))
    assert met == {"prometheus", "inference", "gateway", "fleet", "trainer"}
    assert on(config, "watch") == {"trainer", "prometheus"}
    assert described["sysctls"] == {"net.ipv4.ip_forward": "0"}
    assert [mount["source"] for mount in described["volumes"]] == ["metrics"]


def test_a_private_key_is_mounted_by_its_user_alone(config: dict[str, Any]) -> None:
    def mounted(volume: str) -> set[str]:
        return {
            name
            for name, service in config["services"].items()
            if any(mount.get("source") == volume for mount in service["volumes"])
        }

    assert mounted("ca") == {"provision"}
    for service in ("server", "fleet", "dealer", "enrolment"):
        assert mounted(f"{service}-tls") == {"provision", service}
    assert mounted("control") == {"provision", "server", "trainer"}
    assert mounted("join") == {"provision", "client"}


def test_inference_knows_where_it_is_published() -> None:
    stack = Stack()
    stack.settings(api_host="192.0.2.1")
    services = stack.config()["services"]
    assert [port["host_ip"] for port in services["gateway"]["ports"]] == ["192.0.2.1"]
    assert services["inference"]["environment"]["CLOISTER_PUBLISHED_HOST"] == "192.0.2.1"


def test_what_only_runs_when_asked(config: dict[str, Any]) -> None:
    asked = {n: s["profiles"] for n, s in config["services"].items() if s.get("profiles")}
    tools, observability = ["tools"], ["observability"]
    assert asked == {"api-keys": tools, "sites": tools, "prometheus": observability}


@pytest.mark.parametrize("service", ISOLATION)
def test_hardening(config: dict[str, Any], service: str) -> None:
    described = config["services"][service]
    assert described["read_only"]
    assert described["init"]
    assert described["cap_drop"] == ["ALL"]
    assert "cap_add" not in described
    assert "privileged" not in described
    assert described["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("service", ISOLATION)
def test_no_service_can_take_all_memory_or_processes(config: dict[str, Any], service: str) -> None:
    limits = config["services"][service]["deploy"]["resources"]["limits"]
    assert int(limits["memory"]) >= 1 << 28
    assert limits["pids"] >= 64


@pytest.mark.parametrize("service", ISOLATION)
def test_no_setting_holds_a_secret(config: dict[str, Any], service: str) -> None:
    names = config["services"][service].get("environment") or {}
    # Paths of files and folders; sizes and ages of keys.
    secrets = {"CLOISTER_SUPEREXEC_SECRET", "CLOISTER_API_KEYS_PATH", "CLOISTER_API_KEY_PATH"}
    secrets |= {"CLOISTER_KEYS_DIR", "CLOISTER_KEY_STORE_DIR", "CLOISTER_DEAL_KEY_PATH"}
    # An address.
    secrets |= {"CLOISTER_KEYHOLDER_URL"}
    secrets |= {"CLOISTER_JOIN_TOKEN_PATH", "CLOISTER_TLS_KEY", "CLOISTER_TLS_KEY_FILE"}
    secrets |= {n for n in names if n.startswith("CLOISTER_KEY_") and n.endswith(("BYTES", "DAYS"))}
    suspicious = {n for n in names if any(w in n for w in ("SECRET", "TOKEN", "PASSWORD", "KEY"))}
    assert suspicious <= secrets


@pytest.fixture
def site(tmp_path: Path) -> dict[str, Any]:
    """The one service of a site elsewhere."""
    stack = Stack("cloister-test-site", "docker/site.compose.yaml")
    stack.settings(superlink="federation.example:8443", site_name="a", site_folder=tmp_path)
    config = stack.config()
    assert not any(network.get("internal") for network in config["networks"].values())
    (service,) = config["services"].values()
    described: dict[str, Any] = service
    return described


def test_a_site_elsewhere_is_confined_as_the_sites_here_and_writes_its_key_alone(
    config: dict[str, Any], site: dict[str, Any], tmp_path: Path
) -> None:
    here = config["services"]["client"]
    for what in ("image", "init", "read_only", "cap_drop", "security_opt", "tmpfs", "restart"):
        assert site[what] == here[what], what
    assert site["deploy"]["resources"] == here["deploy"]["resources"]
    assert not site.get("ports")
    mounts = {mount["target"]: mount for mount in site["volumes"]}
    assert {target for target, mount in mounts.items() if not mount.get("read_only")} == {"/data"}
    assert mounts["/site"]["source"] == str(tmp_path)
    assert not mounts["/site"]["bind"].get("create_host_path")


def test_a_site_elsewhere_can_set_what_a_site_here_can(
    config: dict[str, Any], site: dict[str, Any]
) -> None:
    simulated = {"CLOISTER_DEALER_URL", "CLOISTER_LEASE_PATIENCE_SECONDS"}
    own = {"CLOISTER_SITE_NAME", "CLOISTER_SHARD_DIR"}
    own |= {"CLOISTER_LABEL_COLUMN", "CLOISTER_IGNORED_COLUMNS"}
    here = set(config["services"]["client"]["environment"])
    assert set(site["environment"]) - own == here - simulated


def test_the_sites_example_lists_every_setting_with_its_default() -> None:
    taken = dict(re.findall(r"\$\{(\w+)(?:(?::-([^}]*))|(?::\?[^}]*))?\}", SITE.read_text()))
    example = (SITE.parent / "site.env.example").read_text()
    listed = dict(re.findall(r"^(\w+)=(.*)$", example, re.MULTILINE))
    assert listed.keys() == taken.keys()
    required = {"CLOISTER_SUPERLINK", "CLOISTER_SITE_NAME", "CLOISTER_SITE_FOLDER"}
    for name in taken.keys() - required:
        assert listed[name] == taken[name], name
