"""The API's leaderboard: filters, orders, pages; each against a plain look at every row."""

import itertools

import pytest
from fastapi.testclient import TestClient
from made_search import Made, make

from search_server.leaderboard import leaderboard
from search_server.service.app import make_app
from search_server.service.settings import ServiceSettings
from search_server.store import Store

BOARD = "/api/v1/leaderboard"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with Store.open(str(tmp_path_factory.mktemp("store") / "store.db")) as opened:
        yield opened


@pytest.fixture(scope="module")
def made(store) -> Made:
    return make(store)


@pytest.fixture(scope="module")
def client(store, made) -> TestClient:
    app = make_app(store, ServiceSettings(), tokens_wanted=False)
    return TestClient(app, base_url="http://127.0.0.1")


@pytest.fixture(scope="module")
def every(client) -> list[dict]:
    return client.get(BOARD, params={"limit": 200}).json()["rows"]


def ids(rows) -> list[str]:
    return [row["id"] for row in rows]


def pages(client, limit, **query) -> list[str]:
    found, cursor = [], None
    while True:
        given = {**query, "limit": limit, **({"cursor": cursor} if cursor else {})}
        answer = client.get(BOARD, params=given)
        assert answer.status_code == 200, answer.text
        found += ids(answer.json()["rows"])
        cursor = answer.json()["next"]
        if cursor is None:
            return found
        assert len(answer.json()["rows"]) == limit


def test_one_job_stands_as_the_command_line_has_it(client, store, made):
    (group,) = leaderboard(store, made.first, limit=100)
    rows = client.get(BOARD, params={"job": made.first, "limit": 100}).json()["rows"]
    assert ids(rows) == [row.id for row in group.rows]
    for shown, row in zip(rows, group.rows, strict=True):
        assert shown["fitness"] == row.fitness
        assert shown["front"] == row.front
        assert shown["confirmed"] == row.confirmed
        paired = row.judged and row.judged.confirm and row.judged.confirm.difference
        told = shown["judged"] and shown["judged"]["confirm"]["difference"]
        assert (told and (told["mean"], told["low"], told["high"], told["p"])) == (
            paired and (paired.mean, paired.low, paired.high, paired.p)
        )


KEYS = {
    "fitness": lambda row: (-row["fitness"], row["order"]),
    "gain": lambda row: (-row["judged"]["gain"], row["order"]),
    "size": lambda row: (row["size"], -row["fitness"], row["order"]),
    "newest": lambda row: tuple(-part for part in row["order"]),
}
FITS = {
    "fitness": lambda row: row["fitness"] is not None and row["state"] != "failed",
    "gain": lambda row: bool(row["judged"]) and row["judged"]["gain"] is not None,
    "size": lambda row: row["fitness"] is not None and row["state"] == "done",
    "newest": lambda row: True,
}


@pytest.mark.parametrize("sort", KEYS)
def test_orders(client, made, every, sort):
    serial = {made.first: 1, made.second: 2, made.other: 3}
    rows = [{**row, "order": (serial[row["job"]], row["index"])} for row in every]
    expected = ids(sorted(filter(FITS[sort], rows), key=KEYS[sort]))
    assert pages(client, 200, sort=sort) == expected
    assert expected


@pytest.mark.parametrize("sort", ["standing", *KEYS])
def test_pages_together_are_the_whole(client, made, sort):
    for query in ({}, {"job": made.first}):
        whole = pages(client, 200, sort=sort, **query)
        assert pages(client, 3, sort=sort, **query) == whole
        assert len(set(whole)) == len(whole)


def test_filters_are_a_plain_look_at_every_row(client, made, every):
    fits = {
        "job": lambda row, value: row["job"] == value,
        "detector": lambda row, value: row["detector"] == value,
        "state": lambda row, value: row["state"] == value,
        "confirmed": lambda row, value: row["confirmed"],
        "stage": lambda row, value: bool((row["judged"] or {}).get("confirm")),
        "space": lambda row, value: value == "box",
    }
    given = [
        ("job", made.first),
        ("detector", "digits/retinanet"),
        ("state", "dropped"),
        ("state", "failed"),
        ("confirmed", "true"),
        ("stage", "confirm"),
        ("space", "box"),
        ("space", "multi_cls"),
    ]
    tried = 0
    for count in (1, 2, 3):
        for some in itertools.combinations(given, count):
            query = dict(some)
            if len(query) < count:
                continue
            expected = [
                row["id"]
                for row in every
                if all(fits[name](row, value) for name, value in query.items())
            ]
            assert pages(client, 200, **query) == expected, query
            tried += bool(expected)
    assert tried > 15


def test_the_front_is_of_one_job(client, made, every):
    found = pages(client, 2, job=made.first, pareto="true", sort="size")
    own = [row for row in every if row["job"] == made.first and FITS["size"](row)]
    best = -1.0
    expected = []
    for row in sorted(own, key=lambda row: (row["size"], -row["fitness"], row["index"])):
        if row["fitness"] > best:
            expected.append(row["id"])
            best = row["fitness"]
    assert found == expected
    assert client.get(BOARD, params={"pareto": "true"}).status_code == 422


@pytest.mark.parametrize(
    "query",
    [
        {"cursor": "zz"},
        {"cursor": "WzFd"},
        {"sort": "luck"},
        {"limit": "0"},
        {"limit": "201"},
        {"stage": "none"},
    ],
)
def test_what_cannot_be_asked(client, query):
    answer = client.get(BOARD, params=query)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_cursor_is_good_for_its_own_order_alone(client):
    cursor = client.get(BOARD, params={"limit": 1, "sort": "standing"}).json()["next"]
    assert client.get(BOARD, params={"sort": "gain", "cursor": cursor}).status_code == 422


def test_a_cursor_with_numbers_that_no_row_has_is_refused(client):
    from search_server.service.cursors import encoded

    cursor = encoded("newest", -(2**40), 1)
    answer = client.get(BOARD, params={"sort": "newest", "cursor": cursor})
    assert answer.status_code == 422


def test_no_such_job(client):
    assert client.get(BOARD, params={"job": "none-1"}).status_code == 404
