"""Tokens: made, listed, revoked; a browser's session that one opens."""

import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from search_server.cli import run
from search_server.errors import ServiceError
from search_server.service.access import COOKIE
from search_server.service.pages.session import own_path
from search_server.service.settings import ServiceSettings
from search_server.store import Store, tokens

PAGE = {"accept": "text/html"}
Client = Callable[..., TestClient]


def word_of(page: str) -> str:
    """What the forms of a page carry."""
    found = re.search(r'name="csrf" value="(\w+)"', page)
    assert found is not None
    return found[1]


def test_a_token_is_printed_once_and_kept_as_a_hash(
    store_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--store", str(store_file)]
    assert run(["token", "create", "ada", "--role", "submit", *where]) == 0
    text = capsys.readouterr().out.strip()
    assert text.startswith(tokens.PREFIX)
    assert run(["token", "list", "--json", *where]) == 0
    listed = capsys.readouterr().out
    assert [(t["name"], t["role"], t["revoked_at"]) for t in json.loads(listed)["tokens"]] == [
        ("ada", "submit", None)
    ]
    assert text not in listed
    for file in store_file.parent.glob("store.db*"):
        assert text.encode() not in file.read_bytes()
    with Store.open(str(store_file)) as store:
        found = store.token_of(text)
        assert found is not None
        assert found.name == "ada"
        assert store.token_of(text + "x") is None
        assert store.token_of("\ud800") is None


def test_a_revoked_token_is_worth_nothing(
    store_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--store", str(store_file)]
    with Store.open(str(store_file)) as store:
        text = store.create_token("ada", "read")
        assert run(["token", "revoke", "ada", *where]) == 0
        assert store.token_of(text) is None
        with pytest.raises(ServiceError, match="revoked; names are not used twice"):
            store.create_token("ada", "read")
    assert run(["token", "revoke", "eve", *where]) == 2
    assert "no token 'eve'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "  ", "two\nlines", "x" * 101])
def test_a_name_is_a_line_of_text(store: Store, name: str) -> None:
    with pytest.raises(ServiceError, match="is no name"):
        store.create_token(name, "read")


def test_a_browser_shows_its_token_once(store: Store, client: Client, new_job: Any) -> None:
    text = store.create_token("ada", "submit")
    new_job()
    browser = client(tokens=True)
    asked = browser.get("/jobs?state=created", headers=PAGE)
    assert asked.status_code == 401
    assert 'value="/jobs?state=created"' in asked.text
    wrong = browser.post("/login", data={"token": "lossforge_x"}, headers=PAGE)
    assert wrong.status_code == 401
    assert "lossforge_x" not in wrong.text
    browser.cookies.set(COOKIE, "planted by somebody", domain="127.0.0.1", path="/")
    form = {"token": text, "next": "/jobs?state=created"}
    opened = browser.post("/login", data=form, follow_redirects=False)
    assert (opened.status_code, opened.headers["location"]) == (303, "/jobs?state=created")
    cookie = opened.headers["set-cookie"]
    assert "planted" not in cookie
    for part in ("HttpOnly", "SameSite=strict", "Path=/"):
        assert part in cookie
    assert "Secure" not in cookie
    browser.cookies.clear()
    browser.cookies.set(COOKIE, re.search(f"{COOKIE}=([^;]+)", cookie)[1])  # type: ignore[index]
    page = browser.get("/jobs", headers=PAGE)
    assert page.status_code == 200
    assert text not in page.text
    out = browser.post("/logout", data={"csrf": word_of(page.text)}, follow_redirects=False)
    assert out.status_code == 303
    assert browser.get("/jobs", headers=PAGE).status_code == 401


def test_a_session_ends_with_its_token_and_its_time(
    store: Store, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, end in (("ada", "revoked"), ("bob", "time")):
        store.create_token(name, "read")
        found = next(each for each in store.tokens() if each.name == name)
        if end == "time":
            monkeypatch.setattr(tokens, "SESSION_TIME", timedelta(seconds=-1))
        store.open_session(found.id, "word")
        browser = client(tokens=True)
        browser.cookies.set(COOKIE, "word")
        if end == "revoked":
            assert browser.get("/jobs").status_code == 200
            store.revoke_token(name)
        assert browser.get("/jobs").status_code == 401


def test_behind_https_a_cookie_goes_nowhere_else(store: Store, client: Client) -> None:
    text = store.create_token("ada", "read")
    browser = client(ServiceSettings(https=True), tokens=True)
    opened = browser.post("/login", data={"token": text}, follow_redirects=False)
    assert "Secure" in opened.headers["set-cookie"]
    assert "max-age" in opened.headers["strict-transport-security"]


@pytest.mark.parametrize(
    "given",
    ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:x", "", "/a\nb", "x"],
)
def test_logging_in_leads_nowhere_else(given: str) -> None:
    assert own_path(given) == "/jobs"


def test_logging_in_leads_back(store: Store, client: Client) -> None:
    assert own_path("/jobs/a-1?x=1") == "/jobs/a-1?x=1"
    open_here = client().get("/login", follow_redirects=False)  # no tokens: nothing to log in to
    assert open_here.headers["location"] == "/jobs"
