"""HEAD, which programs ask with whether something is there: as GET answers, without the body."""

import re
from collections.abc import Callable

import pytest
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from filled_store import fill

from search_server.service.app import make_app
from search_server.service.settings import ServiceSettings
from search_server.store import Store

Client = Callable[..., TestClient]
FILLED = {"index": "1", "kind": "funnel"}


def read_paths() -> list[str]:
    """Every path that answers GET, as the application itself has them, and some files."""
    app = make_app(None, ServiceSettings(), tokens_wanted=False)  # type: ignore[arg-type]
    contexts = list(iter_route_contexts(app.routes))
    found = {str(each.path) for each in contexts if "GET" in (each.methods or ())}
    return sorted({*found, "/static/main.js", "/static/none.js", "/nowhere"})


@pytest.fixture
def job(store: Store) -> str:
    return fill(store)["done"]


def test_it_is_answered_as_get_is(client: Client, job: str) -> None:
    asked, paths = client(), read_paths()
    assert len(paths) > 25
    for path in paths:
        named = path.replace("{job_id}", job)
        url = re.sub(r"\{([^}]+)\}", lambda found: FILLED[found[1]], named)
        for kind in ("text/html", "application/json"):
            headers = {"accept": kind}
            head = asked.head(url, headers=headers, follow_redirects=False)
            told = asked.get(url, headers=headers, follow_redirects=False)
            assert head.status_code == told.status_code, url
            assert head.headers.get("content-type") == told.headers.get("content-type"), url
            assert head.content == b"", url
            assert ("content-length" in head.headers) == ("content-length" in told.headers), url


def test_a_stream_is_not_opened_for_it(client: Client, store: Store, job: str) -> None:
    running = next(each.id for each in store.jobs() if each.state == "running")
    bounds = {"streams_each": 1}
    asked = client(ServiceSettings.model_validate({"bounds": bounds}))
    for _ in range(3):  # none is left open
        head = asked.head(f"/api/v1/jobs/{running}/events")
        assert head.status_code == 200
        assert head.headers["content-type"].startswith("text/event-stream")
        assert head.content == b""


def test_what_only_changes_things_has_no_head(client: Client, store: Store, job: str) -> None:
    before = store.job(job)
    answer = client().head(f"/jobs/{job}/cancel")
    assert answer.status_code == 405
    assert store.job(job) == before
    refused = client().post("/api/v1/leaderboard")
    assert refused.status_code == 405
    assert refused.headers["allow"] == "GET, HEAD"


def test_nobody_is_let_in_by_it(client: Client, job: str) -> None:
    asked = client(tokens=True)
    assert asked.head(f"/api/v1/jobs/{job}").status_code == 401
    assert asked.head("/healthz").status_code == 200
