"""What nobody means: expressions, specs, forms and queries that are sound but for a change or two.

`LOSSFORGE_FUZZ=50000` asks so many, a third of each kind, wants every answer within two seconds of
processor time, and says at the end what took longest. They are the same in every run of a number.
"""

import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import yaml
from fake_search import HALVING, POLICY, SPEC
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from made_search import SECRET, make

from primitives import SPACES, grow
from search_server.service.access import COOKIE, csrf_word
from search_server.service.app import make_app
from search_server.service.settings import Bounds, ServiceSettings
from search_server.store import Store

EXAMPLES = int(os.environ.get("LOSSFORGE_FUZZ", "0"))
EACH = max(100, EXAMPLES // 3)
SETTINGS = ServiceSettings(bounds=Bounds(requests=10**9, changes=10**9))
SHIPPED = Path(__file__).parents[3] / "configs" / "search"
JOBS = ("made-1", "made-2", "other-1", "none-1", "..", "%00", "%ff", "é", "a" * 300, "'; --")
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1, 3.5, 1e308, 2**31, 2**63, 10**30, "", " ", "x", "x" * 3000, "\x00", "é",
    "\ud800", "1e5", "nan", "yes", "0x10", "2026-01-01", "../../etc/passwd", "/etc/passwd",
    "digits/atss.py", "{{7*7}}", "${HOME}", "__import__('os')", "<script>", "a\nb: c", "*a",
    "&a [*a]", "!!int x", "Div(X,", "Add(X,X)" * 20, [], {}, [[]], [None], {"": 1},
    {"type": "policy"}, {"space": "box"},
)  # fmt: skip
PIECES = ("", "(", ")", ",", "\x00", "é", "9e999", "Div(", "\\", "{", ":", "- ", "\t", "[", "%")
HEAVY = ("svg", "export", "surface", "plotly")  # a tenth of a second each: asked less often
pytestmark = pytest.mark.timeout(0 if EXAMPLES else 600)


@dataclass
class Asked:
    """A client that looks at every answer.

    Attributes:
        took: the slowest: processor seconds, seconds, what was asked.
        statuses: of all answers, by kind.
    """

    client: TestClient
    took: list[tuple[float, float, str]] = field(default_factory=list)
    statuses: dict[str, Counter[int]] = field(default_factory=dict)

    def __call__(self, kind: str, method: str, url: str, **given: Any) -> int:
        body = next((given[name] for name in ("json", "content", "data") if name in given), "")
        what = f"{method} {url[:300]!a} {body!a}"[:1500]
        began, worked = time.monotonic(), time.process_time()
        answer = self.client.request(method, url, follow_redirects=False, **given)
        worked, seconds = time.process_time() - worked, time.monotonic() - began
        assert answer.status_code < 500, (what, answer.text[:300])
        assert "Traceback" not in answer.text, what
        assert SECRET not in answer.text, what
        assert worked < 2 or not EXAMPLES, (what, worked)
        self.statuses.setdefault(kind, Counter())[answer.status_code] += 1
        self.took = sorted([*self.took, (worked, seconds, what)], reverse=True)[:10]
        return answer.status_code


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with Store.open(str(tmp_path_factory.mktemp("store") / "store.db")) as store:
        make(store)
        yield make_app(store, SETTINGS, tokens_wanted=False)


@pytest.fixture(scope="module")
def ask(app: Any, request: pytest.FixtureRequest) -> Iterator[Asked]:
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        client.cookies.set(COOKIE, "word")
        until_loaded(client, app)
        asked = Asked(client)
        yield asked
    plugins = request.config.pluginmanager
    report, capture = map(plugins.getplugin, ("terminalreporter", "capturemanager"))
    if not EXAMPLES or report is None or capture is None:
        return
    with capture.global_and_fixture_disabled():
        for kind, statuses in asked.statuses.items():
            report.write_line(f"\n{kind}: {dict(statuses)}")
        for worked, seconds, what in asked.took:
            report.write_line(f"{1000 * worked:.0f} ms CPU, {1000 * seconds:.0f} ms: {what[:300]}")


def until_loaded(client: TestClient, app: Any) -> None:
    """Loads what checks specs, as a service does when it starts."""
    app.state.service.checker.start()
    word = {"X-CSRF-Token": csrf_word("word")}
    while client.post("/api/v1/specs/check", json={"spec": SMALL}, headers=word).status_code == 503:
        time.sleep(0.1)


def test_expressions(ask: Asked) -> None:
    """Grown at random, and with some of their characters changed, dropped or repeated."""
    chance, generator = random.Random(0), np.random.default_rng(0)
    word = {"X-CSRF-Token": csrf_word("word")}
    for number in range(EACH):
        space = chance.choice([*SPACES.values()])
        text = str(grow(space, generator, 2, chance.randint(2, 9)))
        if number % 2:
            text = garbled(text, chance)
        given = {"expression": text, "space": space.name}
        route = ("/api/v1/verify", "/api/v1/formula", "/verify")[number % 3]
        if route == "/verify":
            body = {**given, "csrf": csrf_word("word")}
            ask("expressions", "POST", route, data=body, headers={"Accept": "text/html"})
        else:
            ask("expressions", "POST", route, json=given, headers=word)
    assert {200, 422} <= ask.statuses["expressions"].keys()


def test_specs(ask: Asked) -> None:
    """As JSON, as YAML, as YAML with characters changed, and the fields of the form."""
    chance = random.Random(1)
    word = {"X-CSRF-Token": csrf_word("word")}
    known = [*specs()]
    for number in range(EACH):
        spec = deepcopy(chance.choice(known))
        for _ in range(chance.choice((0, 1, 1, 1, 2, 4))):
            change(spec, chance)
        kind = number % 4
        if kind == 0:
            content = json.dumps({"spec": spec}).encode()
            headers = {**word, "Content-Type": "application/json"}
            ask("specs", "POST", "/api/v1/specs/check", content=content, headers=headers)
        elif kind < 3:
            text = yaml.safe_dump(spec)
            content = (garbled(text, chance) if kind == 2 else text).encode("utf-8", "replace")
            headers = {**word, "Content-Type": "application/yaml"}
            ask("specs", "POST", "/api/v1/specs/check", content=content, headers=headers)
        else:
            fields = {"csrf": csrf_word("word"), "form": "fields", "nonce": str(number), **FORM}
            for _ in range(chance.randint(1, 3)):
                name = chance.choice([*FORM])
                fields[name] = str(chance.choice(ODD)).encode("utf-8", "replace").decode()
            fields["detector"] = "none"  # nothing is to run
            ask("specs", "POST", "/submit", data=fields, headers={"Accept": "text/html"})
    assert {200, 422} <= ask.statuses["specs"].keys()


def test_queries(ask: Asked, app: Any) -> None:
    """Of everything that is read: values of other parameters, odd ones, bytes that are no text."""
    chance = random.Random(2)
    routes = [*read(app)]
    assert len(routes) > 25
    names = sorted({name for _, queries in routes for name in queries})
    weights = [0.05 if any(word in path for word in HEAVY) else 1.0 for path, _ in routes]
    for _ in range(EACH):
        ((path, queries),) = chance.choices(routes, weights)
        url = path.replace("{job_id}", quote(chance.choice(JOBS), safe="%"))
        url = url.replace("{index}", str(chance.choice((0, 1, 9, 23, 30, -1, 2**31, "x", "1e3"))))
        some = chance.sample(queries, chance.randint(0, min(4, len(queries)))) if queries else []
        if chance.random() < 0.2:
            some.append(chance.choice(names))
        query = "&".join(f"{name}={value(name, chance)}" for name in some)
        if chance.random() < 0.1:
            query = garbled(query, chance)
        accept = chance.choice(("text/html", "application/json", "*/*"))
        target = f"{url}?{query}" if query else url
        ask("queries", "GET", encoded(target), headers={"Accept": accept})
    assert {200, 404, 422} <= ask.statuses["queries"].keys()


SMALL: dict[str, Any] = {
    "name": "small",
    "detector": "digits/atss",
    "branches": {"cls": {"space": "binary_cls"}, "bbox": {"space": "box"}},
    "limits": {"steps": 400},
}
FORM = {
    "name": "small", "detector": "digits/atss", "data": "digits", "search": "both",
    "funnel.proxy.steps": "20", "funnel.proxy.seeds": "0, 1", "limits.steps": "400",
    "candidates": "", "confirm": "true", "funnel.confirm.seeds": "2", "seed": "0",
}  # fmt: skip
USUAL: dict[str, tuple[str, ...]] = {
    "sort": ("standing", "fitness", "gain", "size", "newest"),
    "state": ("done", "failed", "dropped", "running", "cancelled"),
    "stage": ("simulate", "proxy", "confirm", "test"),
    "confirmed": ("true", "false"),
    "pareto": ("true", "false"),
    "job": ("made-1", "other-1", "none-1"),
    "candidate": ("made-1:0", "made-1:9", "other-1:3", "made-1:99"),
    "baseline": ("made-1:0", "made-1:9"),
    "detector": ("digits/atss", "digits/retinanet"),
    "space": ("box", "binary_cls"),
    "format": ("config", "standalone", "json"),
    "limit": ("1", "3", "200"),
    "expression": ("Sub(1,Div(I,U))", "Neg(Log(Sig(X)))", "Div("),
}


def value(name: str, chance: random.Random) -> str:
    """A value of a query: mostly one that means something there."""
    kind = chance.random()
    if kind < 0.6 and name in USUAL:
        return quote(chance.choice(USUAL[name]))
    if kind < 0.7:
        return quote(chance.choice(chance.choice([*USUAL.values()])))
    if kind < 0.9:
        return quote(str(chance.choice(ODD)).encode("utf-8", "replace"))
    return "".join(f"%{chance.randrange(256):02x}" for _ in range(chance.randint(1, 12)))


def encoded(url: str) -> str:
    """The URL as bytes that can be sent."""
    return quote(url, safe="/?&=%:;,+'()[]{}|\\\"<>^`~!*@$-._")


def read(app: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Paths that are asked by GET, and the names in their queries; streams never end."""
    for each in iter_route_contexts(app.routes):
        dependant = getattr(each, "dependant", None)
        path = str(each.path)
        if dependant is not None and "GET" in (each.methods or ()) and not path.endswith("/events"):
            yield path, _queries(dependant)


def _queries(dependant: Any) -> tuple[str, ...]:
    own = [parameter.alias for parameter in dependant.query_params]
    return (*own, *(name for each in dependant.dependencies for name in _queries(each)))


def specs() -> Iterator[dict[str, Any]]:
    """Sound ones of every kind."""
    yield SMALL
    for more in ({}, POLICY, HALVING):
        yield {name: each for name, each in {**SPEC, **more}.items() if each is not None}
    for file in sorted(SHIPPED.glob("*.yaml")):
        yield yaml.safe_load(file.read_text())


def change(spec: dict[str, Any], chance: random.Random) -> None:
    """Put something else somewhere, leave something out, or add what nobody knows."""
    places = [*_places(spec)]
    if not places:
        return
    inside, key = chance.choice(places)
    kind = chance.random()
    if kind < 0.6:
        inside[key] = deepcopy(chance.choice(ODD))
    elif kind < 0.75:
        other, place = chance.choice(places)
        inside[key] = deepcopy(other[place])
    elif kind < 0.9:
        del inside[key]
    elif isinstance(inside, dict):
        inside[str(chance.choice(ODD))[:40]] = deepcopy(chance.choice(ODD))
    else:
        inside.extend(deepcopy(inside) * 20)


def _places(inside: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(inside) if isinstance(inside, dict) else range(len(inside))
    for key in keys:
        yield inside, key
        if isinstance(inside[key], dict | list):
            yield from _places(inside[key])


def garbled(text: str, chance: random.Random) -> str:
    """The text with a few characters dropped, repeated, or replaced."""
    characters: list[str] = list(text)
    for _ in range(chance.randint(1, 4) if characters else 0):
        place = chance.randrange(len(characters))
        characters[place] = chance.choice([chance.choice(PIECES), characters[place] * 2])
    return "".join(characters)
