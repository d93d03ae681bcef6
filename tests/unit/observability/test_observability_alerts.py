"""What Prometheus scrapes, and what operators are told by alerts."""

import re
import shutil
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloister_shared.service import ServiceSettings

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "docker" / "prometheus"
SERVICES = [path.parent.name for path in ROOT.glob("services/*/pyproject.toml")]


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


CONFIGURATION = read(FOLDER / "prometheus.yaml")
RULES = [rule for group in read(FOLDER / "alerts.yaml")["groups"] for rule in group["rules"]]
CHECKS = [
    check
    for test in read(FOLDER / "alerts.test.yaml")["tests"]
    for check in test["alert_rule_test"]
]
PAGE = (ROOT / "docs" / "observability.md").read_text()


def metrics_ports() -> dict[str, int]:
    """Port of the metrics of every service that has some, in Compose."""
    ports = {}
    for service in set(SERVICES) - {"cli"}:
        settings: type[ServiceSettings] = import_module(f"cloister_{service}.settings").Settings
        if "metrics_port" in settings.model_fields:
            ports[service] = settings.model_fields["metrics_port"].default
    environment = read(ROOT / "compose.yaml")["services"]["trainer"]["environment"]
    # A trainer that is run by hand serves none.
    return ports | {"trainer": environment["CLOISTER_METRICS_PORT"]}


def test_every_service_that_has_metrics_is_scraped_where_it_serves_them() -> None:
    scraped: dict[str, int] = {}
    for job in CONFIGURATION["scrape_configs"]:
        for found in job.get("dns_sd_configs", ()):
            scraped |= dict.fromkeys(found["names"], found["port"])
        for found in job.get("static_configs", ()):
            for target in found["targets"]:
                host, port = target.split(":")
                scraped[host] = int(port)
    assert scraped.pop("127.0.0.1") == 9090
    assert scraped == metrics_ports()


def test_nothing_is_changed_and_nothing_deleted_over_http() -> None:
    described = read(ROOT / "compose.yaml")["services"]["prometheus"]
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    started = " ".join(described["command"]) + dockerfile.partition("AS prometheus\n")[2]
    assert "--storage.tsdb.path=/metrics" in started
    assert "--web.enable" not in started


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_says_how_bad_it_is_what_is_wrong_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"].keys() == {"summary", "action"}
    assert all(rule["annotations"].values())


@pytest.mark.parametrize("alert", [rule["alert"] for rule in RULES])
def test_an_alert_is_seen_to_fire_and_to_keep_quiet(alert: str) -> None:
    outcomes = {bool(check.get("exp_alerts")) for check in CHECKS if check["alertname"] == alert}
    assert outcomes == {True, False}


def test_the_page_lists_every_alert() -> None:
    assert re.findall(r"^\| `(\w+)` \| (critical|warning) \|", PAGE, re.MULTILINE) == [
        (rule["alert"], rule["labels"]["severity"]) for rule in RULES
    ]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool")
@pytest.mark.parametrize(
    ("what", "file"),
    [
        ("check config", "prometheus.yaml"),
        ("check rules", "alerts.yaml"),
        ("test rules", "alerts.test.yaml"),
    ],
)
def test_prometheus_takes_it(what: str, file: str) -> None:
    done = subprocess.run(
        ["promtool", *what.split(), str(FOLDER / file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
