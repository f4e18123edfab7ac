"""What people with bad intentions try: refused, logged, and with the right status."""

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from sqlalchemy import text

from search_server.service.access import COOKIE, csrf_word
from search_server.service.app import make_app
from search_server.service.settings import ServiceSettings
from search_server.store import CandidateRecord, Store
from search_server.store.records import ROLES

Client = Callable[..., TestClient]
PAGE = {"accept": "text/html"}
SCRIPT = "<script>alert(1)</script>"
BREAKS_OUT = "\"'><img src=x onerror=alert(1)>"
INJECTIONS = (
    "' OR '1'='1",
    "x'; DROP TABLE jobs; --",
    "1 UNION SELECT secret FROM tokens",
    "%' AND 1=(SELECT COUNT(*) FROM tokens) --",
    '") OR ("1"="1',
)
OPEN = {"/healthz", "/readyz", "/login", "/static/plotly.min.js"}  # for anybody


@dataclass(frozen=True)
class Route:
    """A way to ask: the role that it wants, None where anybody may."""

    method: str
    path: str
    role: str | None
    queries: tuple[str, ...]

    def url(self, job: str, other: str = "0") -> str:
        """A path that leads there."""
        named = self.path.replace("{job_id}", job)
        return re.sub(r"\{[^}]+\}", other, named)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def routes() -> Iterator[Route]:
    """All there are, as the application itself has them."""
    app = make_app(None, ServiceSettings(), tokens_wanted=True)  # type: ignore[arg-type]
    for each in iter_route_contexts(app.routes):
        dependant = getattr(each, "dependant", None)
        if dependant is None:
            continue  # files, and the API's description: no route of ours
        found = set(_roles(dependant))
        assert len(found) <= 1, each.path
        role = next(iter(found), None)
        queries = tuple(field.alias for field in dependant.query_params)
        for method in each.methods or ():
            yield Route(method, str(each.path), role, queries)


def _roles(dependant: Dependant) -> Iterator[str]:
    for each in dependant.dependencies:
        name = getattr(each.call, "__name__", "")
        if name.startswith("needs_"):
            yield name.removeprefix("needs_")
        yield from _roles(each)


ROUTES = sorted(routes(), key=str)
CHANGES = [route for route in ROUTES if route.method not in ("GET", "HEAD")]
GUARDED = [route for route in ROUTES if route.role is not None]


def test_every_route_wants_a_role() -> None:
    assert {route.path for route in ROUTES if route.role is None} == OPEN
    assert len(GUARDED) >= 10
    looks = {"/verify", "/logout", "/api/v1/formula", "/api/v1/verify"}
    for route in CHANGES:
        if route.path not in OPEN | looks:
            assert route.role in ("submit", "admin"), route


@pytest.mark.parametrize("route", GUARDED, ids=str)
def test_who_may_not_is_refused_and_logged(
    route: Route,
    store: Store,
    client: Client,
    new_job: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = route.url(new_job())
    revoked = store.create_token("gone", "admin")
    store.revoke_token("gone")
    tries = {"": 401, "lossforge_wrong": 401, revoked: 401, "\xff": 401}
    assert route.role is not None
    if route.role != ROLES[0]:
        lower = ROLES[ROLES.index(route.role) - 1]  # type: ignore[arg-type]
        tries[store.create_token("lower", lower)] = 403
    asked = client(tokens=True)
    for token, status in tries.items():
        headers = {"Authorization": f"Bearer {token}".encode("latin-1")} if token else {}
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            answer = asked.request(route.method, url, headers=headers)  # type: ignore[arg-type]
        assert answer.status_code == status, token
        assert answer.headers["content-type"] == "application/problem+json"
        assert f"refused {status} {route.method}" in caplog.text
        assert "lossforge_" not in answer.text + caplog.text
        if status == 401:
            assert answer.headers["www-authenticate"] == "Bearer"
    cookie = asked.request(route.method, url, headers={"Cookie": f"{COOKIE}=made-up"})
    assert cookie.status_code == 401
    basic = asked.request(route.method, url, headers={"Authorization": "Basic YTpi"})
    assert basic.status_code == 401


@pytest.mark.parametrize("route", CHANGES, ids=str)
def test_another_site_changes_nothing(
    route: Route, store: Store, client: Client, new_job: Any
) -> None:
    job = new_job()
    store.create_token("ada", "admin")
    store.open_session(store.tokens()[0].id, "word")
    body: dict[str, Any] = {"json": {}}
    right = {"X-CSRF-Token": csrf_word("word")}
    wrong: list[dict[str, str]] = [
        {**right, "Origin": "https://evil.example"},
        {**right, "Origin": "null"},
        {**right, "Sec-Fetch-Site": "cross-site"},
        {**right, "Sec-Fetch-Site": "same-site"},
    ]
    if route.path.startswith("/api/"):
        wrong += [{}, {"X-CSRF-Token": csrf_word("other")}, {"X-CSRF-Token": "é".encode("latin-1")}]  # type: ignore[dict-item]
    else:
        form = {} if route.path == "/login" else {"csrf": csrf_word("word")}
        body = {"data": form}
        for site in ({}, {"csrf": ""}, {"csrf": csrf_word("other")}):
            if route.path == "/login":
                continue  # nobody has a word yet: see below
            for tokens in (True, False):
                browser = client(tokens=tokens)
                browser.cookies.set(COOKIE, "word")
                answer = browser.request(route.method, route.url(job), data=site)
                assert answer.status_code == 403
    for tokens in (True, False):
        browser = client(tokens=tokens)
        browser.cookies.set(COOKIE, "word")
        for headers in wrong:
            answer = browser.request(route.method, route.url(job), headers=headers, **body)
            if route.path == "/login" and not headers.keys() & {"Origin", "Sec-Fetch-Site"}:
                continue
            assert answer.status_code == 403, headers
    assert store.job(job).state == "created"
    assert store.open_requests() == []


def test_a_browser_of_ours_may(store: Store, client: Client, new_job: Any) -> None:
    browser, job = client(), new_job()
    browser.get("/jobs", headers=PAGE)
    word = csrf_word(browser.cookies[COOKIE])
    headers = {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}
    url = f"/api/v1/jobs/{job}/cancel"
    assert browser.post(url, headers=headers).status_code == 403
    assert browser.post(url, headers={**headers, "X-CSRF-Token": word}).status_code == 202


@pytest.mark.parametrize(
    "path",
    [
        "/static/../settings.py",
        "/static/%2e%2e/settings.py",
        "/static/..%2fsettings.py",
        "/static/..%5csettings.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/base.css/../../app.py",
        "/static/%00",
        "/jobs/..%2f..%2fetc%2fpasswd",
        "/jobs/%2e%2e%2f%2e%2e%2fetc%2fpasswd/",
        "/api/v1/jobs/..%2f..%2fetc%2fpasswd",
        "/api/v1/jobs/%00",
        "/api/v1/jobs/%ff%fe",
    ],
)
def test_no_path_leads_to_a_file(path: str, client: Client) -> None:
    asked = client()
    answer = asked.get(path, follow_redirects=False)
    assert answer.status_code in (303, 307, 404, 422)
    assert "root:" not in answer.text
    assert "import" not in answer.text
    posted = asked.post(f"{path}/cancel")
    assert posted.status_code in (404, 405, 422)


def test_no_text_of_others_becomes_a_part_of_a_page(
    store: Store, client: Client, new_job: Any
) -> None:
    jobs = []
    for bad in (SCRIPT, BREAKS_OUT):
        job = new_job(bad)
        store.set_job_state(job, "running")
        definition = {"name": bad, "cls": None, "bbox": None, "iou_centerness": False}
        record = CandidateRecord(
            *(0, "baseline", (), definition, "key"), name=bad, cls_text=bad, bbox_text=bad
        )
        store.add_candidate(job, record)
        store.set_job_state(job, "failed", bad)
        store.reopen_request(job, bad)
        store.note_request(job, note=bad)
        jobs.append(job)
    browser, seen = client(), 0
    for route in ROUTES:
        if route.method != "GET" or route.path.startswith("/api/"):
            continue
        for bad in (SCRIPT, BREAKS_OUT):
            for job in jobs:
                queries: list[dict[str, str]] = [{}]
                queries += [{name: bad} for name in route.queries]
                queries += [{name: f"{job}:0"} for name in route.queries]
                for query in queries:
                    url = route.url(job)
                    if url.endswith("/events"):
                        continue
                    answer = browser.get(url, params=query, headers=PAGE, follow_redirects=False)
                    assert answer.status_code < 500, (url, query)
                    _harmless(answer.text, answer.headers.get("content-type", ""))
                    seen += "alert(1)" in answer.text
            for hidden in (quote(bad, safe=""), f"{quote(bad, safe='')}/x"):
                _harmless(browser.get(f"/{hidden}", headers=PAGE).text)
                _harmless(browser.get(f"/jobs/{hidden}", headers=PAGE).text)
    assert seen >= 4  # it is shown, as text
    page = browser.get("/submit", headers=PAGE).text
    word = csrf_word(browser.cookies[COOKIE])
    assert word in page
    for bad in (SCRIPT, BREAKS_OUT):
        for form in ("fields", "yaml"):
            sent = {"csrf": word, "form": form, "nonce": bad, "yaml": f"name: [{bad}\n{bad}: 1"}
            sent |= {"name": f"{bad}\n", "detector": bad, "data": bad, "search": bad, "seed": bad}
            answer = browser.post("/submit", data=sent, headers=PAGE)
            assert answer.status_code == 422
            _harmless(answer.text)
    _harmless(browser.post("/login", data={"token": SCRIPT, "next": BREAKS_OUT}).text)


class Tags(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def _harmless(page: str, kind: str = "text/html") -> None:
    """That nothing of what was sent is a tag, or an attribute, of an answer."""
    if not kind.startswith(("text/html", "image/svg")):
        return
    for tag, attributes in Tags(page).found:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        assert tag != "img" or attributes.get("src") != "x"
        assert tag != "script" or (attributes.get("src") or "").startswith("/static/")
        links = (attributes.get(name) or "" for name in ("href", "src", "action"))
        assert not any(link.strip().lower().startswith("javascript:") for link in links)


def test_answers_forbid_what_a_page_does_not_need(client: Client) -> None:
    browser = client()
    for path in ("/jobs", "/api/v1/jobs", "/static/base.css", "/nowhere", "/healthz"):
        headers = browser.get(path, headers=PAGE).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert re.search(r"script-src 'self';", policy)
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "server" not in headers


@pytest.mark.parametrize("bad", INJECTIONS)
def test_nothing_that_is_sent_is_sql(bad: str, store: Store, client: Client, new_job: Any) -> None:
    new_job()
    asked = client()
    for route in ROUTES:
        if route.method != "GET" or route.path.endswith("/events"):
            continue
        for query in ({}, *({name: bad} for name in route.queries)):
            for job in ("digits-atss-1", quote(bad, safe="")):
                answer = asked.get(route.url(job, quote(bad, safe="")), params=query)
                assert answer.status_code < 500, (route, query)
    spec = {"name": bad, "detector": bad, "data": bad, "branches": {"bbox": {"space": bad}}}
    headers = {"Idempotency-Key": bad}
    refused = client().post("/api/v1/jobs", json={"spec": spec}, headers=headers)
    assert refused.status_code == 422
    assert store.token_of(bad) is None
    with store.reading() as session:
        assert session.execute(text("SELECT COUNT(*) FROM jobs")).scalar_one() == 1


def test_bodies_are_bounded(client: Client) -> None:
    asked = client(ServiceSettings.model_validate({"bounds": {"body_kib": 4}}))
    kind = {"Content-Type": "application/json"}
    for url in ("/api/v1/jobs", "/api/v1/specs/check", "/submit", "/login", "/nowhere"):
        whole = asked.post(url, content=b"x" * 5000, headers=kind)
        pieces = asked.post(url, content=iter([b"x" * 1000] * 6), headers=kind)
        lied = asked.post(url, content=b"x" * 10, headers={**kind, "Content-Length": "99999"})
        odd = asked.post(url, content=b"", headers={"Content-Length": "\xb2".encode("latin-1")})  # type: ignore[dict-item]
        found = [each.status_code for each in (whole, pieces, lied, odd)]
        assert found == [413, 413, 413, 413], url


def test_deep_and_odd_bodies_are_no_specs(client: Client) -> None:
    asked = client()
    for content, kind, status in (
        (b"[" * 50_000, "application/json", 422),
        (b'{"spec":' * 5_000, "application/json", 422),
        (b"{a: " * 10_000, "application/yaml", 422),
        (b"- " * 30_000, "application/yaml", 422),
        (b'{"spec": {"name": "\\ud800\\u0000"}}', "application/json", 422),
        (b"name: x", "text/plain", 415),
        (b"name: x", "", 415),
        (b"name=x", "application/x-www-form-urlencoded", 415),
    ):
        headers = {"Content-Type": kind} if kind else {}
        answer = asked.post("/api/v1/specs/check", content=content, headers=headers)
        assert answer.status_code == status, content[:20]
        assert answer.headers["content-type"] == "application/problem+json"


def test_queries_are_bounded(client: Client) -> None:
    asked = client()
    assert asked.get("/api/v1/jobs?x=" + "a" * 9000).status_code == 414
    assert asked.get("/api/v1/jobs?" + "a&" * 3000).status_code == 200
    assert asked.get("/api/v1/jobs/" + "a" * 5000).status_code == 422


def test_nobody_asks_without_end(client: Client, store: Store) -> None:
    settings = ServiceSettings.model_validate({"bounds": {"requests": 5, "changes": 2}})
    asked = client(settings)
    found = [asked.get("/api/v1/jobs").status_code for _ in range(7)]
    assert found == [200] * 5 + [429] * 2
    refused = asked.get("/api/v1/jobs")
    assert int(refused.headers["retry-after"]) > 0
    assert asked.get("/healthz").status_code == 200  # the probes of who looks after it
    asked = client(settings)
    found = [asked.post("/api/v1/specs/check", json={}).status_code for _ in range(4)]
    assert found == [422, 422, 429, 429]


def test_a_new_token_each_time_is_nobody_else(client: Client) -> None:
    settings = ServiceSettings.model_validate({"bounds": {"requests": 2}})
    asked = client(settings, tokens=True)
    found = [
        asked.get("/api/v1/jobs", headers={"Authorization": f"Bearer {n}"}).status_code
        for n in range(50)
    ]
    assert set(found[:40]) == {401}
    assert set(found[40:]) == {429}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:8330", 200),
        ("localhost:8330", 200),
        ("[::1]:8330", 200),
        ("LOCALHOST", 200),
        ("ours.example", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("evil.example:8330", 403),
        ("", 403),
    ],
)
def test_another_name_for_this_machine_is_a_trick(
    host: str, status: int, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    asked = client(ServiceSettings(hosts=("ours.example",)))
    answer = asked.get("/api/v1/jobs", headers={"Host": host})
    assert answer.status_code == status
    assert ("refused 403" in caplog.text) == (status == 403)


def test_no_answer_tells_of_the_inside(
    store: Store, client: Client, new_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = new_job()
    asked = client()

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(f"secret at {store.url}")

    monkeypatch.setattr("search_server.service.api.jobs.job_page", broken)
    answer = asked.get("/api/v1/jobs")
    assert answer.status_code == 500
    for word in ("secret", "sqlite", "Traceback", "RuntimeError"):
        assert word not in answer.text
    assert str(store.url) not in asked.get(f"/api/v1/jobs/{job}").text
    assert asked.delete("/api/v1/jobs").status_code == 405
