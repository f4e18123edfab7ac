"""The runbook names only commands, options, files and metrics that there are."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fastapi.routing import APIRoute
from typer.main import get_command

from search_server.cli.app import app
from search_server.metrics import StoreCollector
from search_server.service.api import health

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "runbook.md").read_text()
BLOCKS = re.findall(r"^```\n(.*?)^```", TEXT, re.M | re.S)
LOSSFORGE = re.compile(r"\blossforge ([a-z][^`|&\n#;'\")]*)")


def commands() -> Iterator[str]:
    """Every call of `lossforge`, in blocks and in running text."""
    for block in BLOCKS:
        joined = block.replace("\\\n", " ")
        yield from (match[1].strip() for match in LOSSFORGE.finditer(joined))
    prose = re.sub(r"^```\n.*?^```", "", TEXT, flags=re.M | re.S)
    for quoted in re.findall(r"`([^`\n]+)`", prose):
        yield from (match[1].strip() for match in LOSSFORGE.finditer(quoted))


@pytest.mark.parametrize("line", sorted({each for each in commands() if each != "lossforge"}))
def test_commands_and_their_options_are_there(line: str) -> None:
    words = shlex.split(line.replace("...", ""))
    command = get_command(app)
    while words and hasattr(command, "commands"):
        name = words.pop(0)
        assert name in command.commands, f"lossforge {line}: {name}"
        command = command.commands[name]
    options = {text for each in command.params for text in each.opts}
    assert {word for word in words if word.startswith("--")} <= options, line


def test_files_are_there() -> None:
    for name in re.findall(r"(?:deploy|docs|tests)/[\w./-]+\w", TEXT):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"\]\(([\w./]+)\)", TEXT):
        assert (ROOT / "docs" / name).exists(), name


def test_every_metric_is_explained_and_no_other() -> None:
    endings = {"counter": "_total", "info": "_info"}
    told = {
        family.name + endings.get(family.type, "")
        for family in StoreCollector("none.db").describe()
    }
    assert set(re.findall(r"\blossforge_\w+", TEXT)) == told


def test_every_variable_of_compose_that_is_named_is_there() -> None:
    example = (ROOT / "deploy" / "env.example").read_text()
    assert "LOSSFORGE_IMAGE" in TEXT
    assert re.search(r"^LOSSFORGE_IMAGE=", example, re.M)


def test_every_service_of_compose_that_is_named_is_there() -> None:
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    named = re.findall(r"docker compose (?:run --rm(?: --no-deps)?|exec -T|restart) (\w+)", TEXT)
    for stopped in re.findall(r"docker compose stop (.+)", TEXT):
        named += stopped.split()
    assert {"cli", "postgres", "service", "metrics"} <= set(named)
    assert set(named) <= services.keys()


def test_the_service_is_where_it_is_said_to_be() -> None:
    paths = {route.path for route in health.router.routes if isinstance(route, APIRoute)}
    assert paths == {"/healthz", "/readyz"}
    assert all(f"`{path}`" in TEXT for path in paths)
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]["service"]
    check = compose["healthcheck"]["test"][-1]
    assert "http://127.0.0.1:8330/readyz" in check
    assert compose["ports"] == ["127.0.0.1:8330:8330"]
    assert compose["command"][compose["command"].index("--port") + 1] == "8330"
    assert "http://127.0.0.1:8330/" in TEXT
    manifest = yaml.safe_load_all((ROOT / "deploy" / "kuberay" / "service.yaml").read_text())
    by_kind = {each["kind"]: each for each in manifest}
    (container,) = by_kind["Deployment"]["spec"]["template"]["spec"]["containers"]
    probes = {name: each for name, each in container.items() if name.endswith("Probe")}
    assert {each["httpGet"]["path"] for each in probes.values()} == paths
    assert probes["livenessProbe"]["httpGet"]["path"] == "/healthz", "no restart for a store away"
    (port,) = by_kind["Service"]["spec"]["ports"]
    assert f"service/lossforge-service 8330:{port['port']}" in TEXT


def test_there_is_a_row_for_whatever_alerts() -> None:
    rows = {
        "LossforgeStoreAway": "`lossforge_up` is 0",
        "LossforgeNothingEnds": "jobs run and no trial ends",
        "LossforgeTrialsFail": "half of the trials fail",
        "LossforgeCancelHangs": "a job stays `cancelling`",
    }
    alerts = yaml.safe_load((ROOT / "deploy" / "alerts.yml").read_text())["groups"][0]["rules"]
    assert {each["alert"] for each in alerts} == rows.keys()
    for row in rows.values():
        assert f"\n| {row} |" in TEXT
