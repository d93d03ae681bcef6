"""Dashboard and alert rules ask for series that the services export, and for no others."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from exported import (
    PROMETHEUS_OWN,
    asked_for,
    free_port,
    haproxy_series,
    provisioned,
    proxies_asked_for,
    python_series,
    running,
)

DOCKER = Path(__file__).parents[3] / "docker"
DASHBOARD: dict[str, Any] = json.loads((DOCKER / "grafana" / "cloister.json").read_text())
RULES: dict[str, Any] = yaml.safe_load((DOCKER / "prometheus" / "alerts.yaml").read_text())

PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
QUERIES += [rule["expr"] for group in RULES["groups"] for rule in group["rules"]]
HAPROXY = "haproxy_"


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ('sum by (a, b) (rate(x_total{route=~".+/{infer}"}[5m])) / y', {"x_total", "y"}),
        ("max(last_over_time(a[15m])) < b unless on () c", {"a", "b", "c"}),
        ("time() - a > 0.5 * b offset 10m", {"a", "b"}),
        ("absent(up)", {"up"}),
    ],
)
def test_the_names_in_a_query_are_found(query: str, names: set[str]) -> None:
    assert asked_for(query) == names


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_asks_for_something(query: str) -> None:
    assert asked_for(query)


def test_what_is_asked_of_inference_and_trainer_is_exported() -> None:
    exported = python_series() | PROMETHEUS_OWN
    unknown = {name for query in QUERIES for name in asked_for(query) - exported}
    assert {name for name in unknown if not name.startswith(HAPROXY)} == set()


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="there is no haproxy")
def test_what_is_asked_of_gateway_and_fleet_is_exported(tmp_path: Path) -> None:
    asked = {found for query in QUERIES for found in proxies_asked_for(query)}
    with (
        running("cloister_gateway", {"published_port": free_port()}) as gateway,
        running("cloister_fleet", provisioned(tmp_path)) as fleet,
    ):
        exported = haproxy_series(gateway) | haproxy_series(fleet)
    assert asked - exported == set()


def test_every_query_of_haproxy_says_of_which_part() -> None:
    for query in QUERIES:
        of_haproxy = {name for name in asked_for(query) if name.startswith(HAPROXY)}
        assert {name for name, _ in proxies_asked_for(query)} == of_haproxy, query


def test_every_metric_of_ours_that_an_operator_may_look_at_has_a_panel() -> None:
    queries = [target["expr"] for panel in PANELS for target in panel["targets"]]
    shown = {name for query in queries for name in asked_for(query)}
    ours = {name for name in python_series() if name.startswith("cloister_")}
    # Of a histogram the buckets, or how many there were, say it.
    parts = {name for name in ours if name.endswith(("_sum", "_count"))}
    assert ours - parts - shown == set()


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    everything = DASHBOARD["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    cells = [
        (x, y)
        for panel in everything
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    assert {panel["datasource"]["uid"] for panel in PANELS} == {"${datasource}"}
