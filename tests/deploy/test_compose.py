"""compose.yaml: pinned images, health, secrets from the environment, nothing open to others."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import make_url

from search_server.service.settings import load_settings

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
TEXT = (DEPLOY / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


def documented() -> dict[str, str]:
    """Variables of env.example, each with a comment above it, and its value there."""
    found: dict[str, str] = {}
    explained = False
    for line in (DEPLOY / "env.example").read_text().splitlines():
        if line.startswith("#"):
            explained = True
        elif not line.strip():
            explained = False
        else:
            name, _, value = line.partition("=")
            assert explained, f"{name} is not explained"
            found[name] = value
    return found


def test_every_variable_is_explained_and_every_explained_one_used() -> None:
    used = {match[1] for match in VARIABLE.finditer(TEXT)}
    assert used == documented().keys()


def test_defaults_are_those_that_are_written_down_and_secrets_have_none() -> None:
    values = documented()
    for name, sign, default in VARIABLE.findall(TEXT):
        secret = re.search("PASSWORD|TOKEN", name)
        if secret:
            assert (sign, values[name]) == ("?", ""), f"{name} must be given"
        else:
            assert (sign, default) == ("-", values[name]), name


def test_images_are_pinned() -> None:
    for name, service in SERVICES.items():
        image = VARIABLE.sub(lambda match: match[3], service["image"])
        assert re.search(r":v?\d+\.\d+(\.\d+)?(-[a-z]+)?$", image), f"{name}: {image}"
        assert "build" not in service


def test_what_runs_on_has_a_health_check_and_comes_back() -> None:
    for name, service in SERVICES.items():
        if name == "cli":
            continue
        check = service["healthcheck"]
        assert check["test"][0] in ("CMD", "CMD-SHELL")
        assert {"interval", "timeout", "retries"} <= check.keys()
        assert service["restart"] == "unless-stopped"


def test_who_is_waited_for_has_a_health_check() -> None:
    for service in SERVICES.values():
        for other, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert "healthcheck" in SERVICES[other]


def test_nothing_listens_beyond_this_machine() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert published
    for port in published:
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), port
    assert not any("ports" in SERVICES[name] for name in ("postgres", "worker"))
    assert not any(
        service.get("privileged") or "network_mode" in service for service in SERVICES.values()
    )


def test_every_ray_process_wants_and_has_the_token() -> None:
    for name in ("head", "worker", "cli", "service"):
        environment = SERVICES[name]["environment"]
        assert environment["RAY_AUTH_MODE"] == "token"
        assert environment["RAY_AUTH_TOKEN"].startswith("${RAY_AUTH_TOKEN:?")


def test_the_store_is_the_compose_files_own_postgres() -> None:
    database = SERVICES["postgres"]["environment"]
    for name in ("head", "worker", "cli", "metrics", "service"):
        url = make_url(VARIABLE.sub("secret", SERVICES[name]["environment"]["LOSSFORGE_STORE"]))
        assert url.get_backend_name() == "postgresql"
        assert url.host == "postgres"
        assert url.username == database["POSTGRES_USER"]
        assert url.database == database["POSTGRES_DB"]


def test_volumes_are_declared_and_files_are_there() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = VARIABLE.sub("", volume).partition(":")[0]
            if source.startswith("./"):
                assert (DEPLOY / source).exists(), source
            elif source:
                assert source in COMPOSE["volumes"], source


@pytest.mark.parametrize("name", ["head", "worker", "metrics", "service", "cli"])
def test_our_containers_can_do_little(name: str) -> None:
    assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]
    assert SERVICES[name]["init"] is True


def test_the_gpu_file_changes_only_what_is_there() -> None:
    more = yaml.safe_load((DEPLOY / "compose.cuda.yaml").read_text())
    assert more["services"].keys() <= SERVICES.keys()


def test_the_services_settings_are_such() -> None:
    settings = load_settings(DEPLOY / "service.yaml")
    assert settings.runs.where == "http://head:8265"
    assert settings.allowed_detectors()
