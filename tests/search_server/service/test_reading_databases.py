"""What the API reads is the same from either database."""

from fastapi.testclient import TestClient
from made_search import make

from search_server.service.app import make_app
from search_server.service.board_query import SORTS
from search_server.service.settings import ServiceSettings
from search_server.store import Store

FILTERS = (
    {},
    {"confirmed": "true"},
    {"stage": "proxy"},
    {"stage": "confirm"},
    {"state": "failed"},
    {"state": "dropped"},
    {"detector": "digits/retinanet"},
    {"space": "box"},
    {"job": "made-1"},
    {"job": "made-1", "pareto": "true"},
)


def answers(store: Store) -> dict[str, object]:
    """What is answered to everything that reads by a statement of its own, without times."""
    app = make_app(store, ServiceSettings(), tokens_wanted=False)
    client = TestClient(app, base_url="http://127.0.0.1")
    found: dict[str, object] = {}
    for sort in SORTS:
        for given in FILTERS:
            whole: list[str] = []
            cursor = None
            while True:
                more = {"cursor": cursor} if cursor else {}
                query = {**given, **more, "sort": sort, "limit": 9}
                answer = client.get("/api/v1/leaderboard", params=query)
                assert answer.status_code == 200, answer.text
                whole += [row["id"] for row in answer.json()["rows"]]
                cursor = answer.json()["next"]
                if cursor is None:
                    break
            found[f"{sort} {given}"] = whole
    one = "/api/v1/jobs/made-1"
    for place in ("plots/progress", "plots/front", "plots/funnel", "candidates/9/plots/curves"):
        found[place] = client.get(f"{one}/{place}").json()
    candidate = client.get(f"{one}/candidates/23").json()
    found["candidate"] = {name: each for name, each in candidate.items() if name != "trials"}
    compared = {"candidate": ["made-1:0", "made-1:5", "made-2:1"]}
    found["compare"] = client.get("/api/v1/compare", params=compared).json()
    for none_so_large in (2**31, 99_999_999_999, 10**30):
        for place in ("", "/curves", "/formula", "/plots/curves"):
            answer = client.get(f"{one}/candidates/{none_so_large}{place}")
            assert (answer.status_code, answer.json()["detail"]) == (
                404,
                "the job has no such candidate",
            )
        wanted = {"candidate": ["made-1:0", f"made-1:{none_so_large}"]}
        answer = client.get("/api/v1/compare", params=wanted)
        assert answer.status_code == 404
        assert f"no candidate made-1:{none_so_large}" in answer.json()["detail"]
    for place in (
        "/api/v1/metrics",
        "/api/v1/jobs",
        "/jobs",
        "/jobs/made-1",
        one,
        f"{one}/candidates/23",
    ):
        assert client.get(place).status_code == 200
    return found


def test_they_answer_alike(url, tmp_path):
    with Store.open(str(tmp_path / "sqlite.db")) as expected, Store.open(url) as store:
        for each in (expected, store):
            make(each)
        assert answers(store) == answers(expected)
