"""Dashboard, alerts and scrape settings ask only for what the exporter has."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from search_server.metrics import StoreCollector
from search_server.store import CandidateRecord, Store

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "lossforge.json").read_text())
FUNCTIONS = {"sum", "min", "max", "rate", "increase", "absent"}
WORDS = {"by", "on", "and", "or", "unless", "without", "ignoring", "group_left", "group_right"}
ADDED = {"job", "instance"}  # labels that Prometheus adds to every series


def read(expression: str) -> tuple[set[str], set[str]]:
    """Metrics and labels that a PromQL expression names.

    Raises:
        AssertionError: a word that is neither a metric, nor a function that is known here.
    """
    labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression))
    text = re.sub(r'"[^"]*"', '""', expression)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", text)
    grouped = r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)"
    for listed in re.findall(grouped, text):
        labels |= {label.strip() for label in listed.split(",") if label.strip()}
    text = re.sub(grouped, " ", text)
    metrics = set()
    for word, bracket in re.findall(r"\b([a-zA-Z_]\w*)\b\s*(\(?)", text):
        if word in WORDS:
            continue
        if bracket:
            assert word in FUNCTIONS, f"{word}() in {expression}"
        else:
            metrics.add(word)
    return metrics, labels


def expressions() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield f"panel {panel['title']}", target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            listed = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
            assert listed is not None
            yield f"variable {variable['name']}", f"sum by ({listed[2]}) ({listed[1]})"
    for group in yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield f"alert {rule['alert']}", rule["expr"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Sample name -> labels, of a store that has something of everything."""
    file = tmp_path_factory.mktemp("metrics") / "store.db"
    with Store.open(str(file)) as store:
        job = store.create_job("seen", {}, "model", ["one"])
        store.set_job_state(job, "running")
        for index, origin in enumerate(("baseline", "random")):
            made = CandidateRecord(index, origin, (), {}, key=origin)  # type: ignore[arg-type]
            store.add_candidate(job, made)
            store.start_trial(job, index, "proxy", 0, "k")
            store.update_candidate(job, index, fitness=0.25)
    collector = StoreCollector(str(file))
    try:
        return {
            sample.name: set(sample.labels)
            for family in collector.collect()
            for sample in family.samples
        }
    finally:
        collector.close()


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_only_what_the_exporter_has_is_asked_for(
    where: str, expression: str, exported: dict[str, set[str]]
) -> None:
    metrics, labels = read(expression)
    assert metrics
    assert metrics <= exported.keys(), where
    known = set().union(*(exported[name] for name in metrics))
    assert labels <= known, where


def test_the_exporter_says_beforehand_what_it_has(exported: dict[str, set[str]]) -> None:
    endings = {"counter": "_total", "info": "_info"}
    told = {
        family.name + endings.get(family.type, "")
        for family in StoreCollector("none.db").describe()
    }
    assert told == exported.keys()
    assert not any(labels & ADDED for labels in exported.values()), "Prometheus would rename them"


def test_the_reader_of_expressions_reads() -> None:
    assert read('3 * sum by (a) (rate(m{b=~"c d"}[5m])) > 0 and on (e) n') == (
        {"m", "n"},
        {"a", "b", "e"},
    )
    with pytest.raises(AssertionError):
        read("quantile(m)")


def test_panels_have_places_of_their_own_and_are_explained() -> None:
    taken: set[tuple[int, int]] = set()
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in DASHBOARD["panels"]:
        assert panel["description"]
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        own = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not own & taken
        taken |= own


def test_prometheus_scrapes_where_compose_serves() -> None:
    settings = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    (job,) = settings["scrape_configs"]
    ((target,),) = (each["targets"] for each in job["static_configs"])
    service, _, port = target.partition(":")
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    command = compose[service]["command"]
    assert command[command.index("--port") + 1] == port
    mounted = {volume.split(":")[0] for volume in compose["prometheus"]["volumes"]}
    assert {"./prometheus.yml", *(f"./{name}" for name in settings["rule_files"])} <= mounted
