"""Formulas, verdicts, comparisons and plots over the API; what it refuses, and with which words."""

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from fastapi.testclient import TestClient
from made_search import GIOU, Made, add, make, train
from scipy import stats
from typer.testing import CliRunner

from losses import CATALOG
from primitives import OPERATORS, SPACES
from search_server.cli.app import app as command_line
from search_server.paired_statistics import holm
from search_server.service import plots
from search_server.service.app import make_app
from search_server.service.settings import ServiceSettings
from search_server.service.verifying import LARGEST_DESCENT
from search_server.store import Store

P = "/api/v1"


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


class TestFormulas:
    def test_every_operator_is_typeset(self, client):
        for name, operator in OPERATORS.items():
            space = next(s for s in SPACES.values() if name in s.operators)
            leaf = next(i.name for i in space.inputs)
            call = f"{name}({','.join([leaf] * operator.arity)})"
            text = call
            answer = client.post(f"{P}/formula", json={"expression": text, "space": space.name})
            if answer.status_code == 422:  # its kind is no root's
                text = f"Dot({call},{leaf})" if "Dot" in space.operators else f"Add({call},{leaf})"
                answer = client.post(f"{P}/formula", json={"expression": text, "space": space.name})
            assert answer.status_code == 200, answer.text
            (branch,) = answer.json()["branches"].values()
            (line,) = branch["mathml"]
            root = ElementTree.fromstring(line)
            assert root.tag.endswith("math")
            assert "\\" not in "".join(root.itertext())
            assert branch["expression"] == text

    def test_the_whole_catalogue(self, client):
        found = client.get(f"{P}/losses").json()["losses"]
        assert [each["name"] for each in found] == list(CATALOG)
        for each in found:
            answer = client.post(f"{P}/formula", json={"definition": each["definition"]})
            assert answer.status_code == 200
            assert set(answer.json()["branches"]) == set(each["branches"])

    def test_what_a_user_calls_things_is_text(self, client):
        name = "<script>alert(1)</script>"
        answer = client.post(f"{P}/formula", json={"definition": {"name": name}})
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.json()["name"] == name

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"expression": "Sub(1,Div(I,U)", "space": "box"}, "expression"),
            ({"expression": "__import__('os')", "space": "box"}, "expression"),
            ({"expression": "I", "space": "nowhere"}, "space"),
            ({"expression": "I", "space": "/etc/passwd"}, "space"),
            ({"expression": "I", "space": {"name": "x"}}, "space"),
            ({"definition": {"name": "x", "cls": {"type": "python"}}}, "definition.cls.type"),
            ({"definition": {"name": "x", "file": "y"}}, "definition.file"),
            ({"expression": "I", "space": "box", "more": 1}, "more"),
        ],
    )
    def test_refused(self, client, body, field):
        answer = client.post(f"{P}/formula", json=body)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == field

    @pytest.mark.parametrize(
        "body",
        [
            {"definition": {"name": "x"}, "expression": "I"},
            {"definition": {"name": "x"}, "space": "box"},
            {"expression": "I"},
            {"space": "box"},
            {},
        ],
    )
    def test_one_of_definition_and_expression(self, client, body):
        answer = client.post(f"{P}/formula", json=body)
        assert answer.status_code == 422
        assert "one of the two" in answer.json()["detail"]

    def test_what_is_too_large(self, client):
        deep = "X"
        for _ in range(70):
            deep = f"Neg({deep})"
        for text in (deep, "Add(" * 5000, "X" * 10_001):
            for route in ("formula", "verify"):
                asked = {"expression": text, "space": "binary_cls"}
                answer = client.post(f"{P}/{route}", json=asked)
                assert answer.status_code == 422
                assert len(answer.content) < 3000


class TestVerdicts:
    @pytest.mark.parametrize(
        ("text", "space"),
        [(GIOU, "box"), ("Neg(I)", "box"), ("Mul(X,X)", "binary_cls"), ("Neg(Q)", "binary_cls")],
    )
    def test_they_are_the_command_lines(self, client, text, space):
        told = CliRunner().invoke(command_line, ["verify", text, "--space", space, "--json"])
        answer = client.post(f"{P}/verify", json={"expression": text, "space": space})
        assert answer.status_code == 200
        assert answer.json() == json.loads(told.stdout)

    def test_a_space_of_ones_own(self, client):
        space = {**SPACES["box"].to_json(), "name": "mine", "constants": [0.5]}
        answer = client.post(f"{P}/verify", json={"expression": GIOU, "space": space})
        assert answer.json()["accepted"]
        assert answer.json()["space"] == "mine"

    def test_a_space_that_no_loss_has_the_inputs_of(self, client):
        space = {**SPACES["box"].to_json(), "inputs": {"A": "per_row"}}
        answer = client.post(f"{P}/verify", json={"expression": "A", "space": space})
        assert answer.status_code == 422

    def test_no_descent_on_what_is_large(self, client):
        text = "Abs(X)"
        for _ in range(6):
            text = f"Add({text},{text})"
        body = {"expression": text, "space": "autoloss_zero_binary_cls"}
        answer = client.post(f"{P}/verify", json=body)
        assert answer.status_code == 422
        assert str(LARGEST_DESCENT) in answer.json()["detail"]


class TestCompare:
    def test_paired_by_seed_and_corrected(self, client, store, made):
        ids = [f"{made.first}:{index}" for index in (0, 5, 8, 9)]
        found = client.get(f"{P}/compare", params={"candidate": ids}).json()
        assert found["baseline"] == ids[0]
        assert [stage["stage"] for stage in found["stages"]] == ["proxy", "confirm"]
        rows = found["stages"][1]["rows"]
        base = rows[0]["by_seed"]
        assert rows[0]["difference"] is None
        p = []
        for row in rows[1:]:
            own = [row["by_seed"][seed] for seed in base]
            tested = stats.ttest_rel(own, list(base.values()))
            low, high = tested.confidence_interval(0.95)
            assert row["difference"]["mean"] == pytest.approx(
                np.mean(own) - np.mean([*base.values()])
            )
            assert row["difference"]["low"] == pytest.approx(low)
            assert row["difference"]["high"] == pytest.approx(high)
            p.append(tested.pvalue)
        assert [row["p"] for row in rows[1:]] == pytest.approx(holm(p))

    def test_another_baseline_and_jobs_that_train_alike(self, client, made):
        given = {
            "candidate": [f"{made.first}:5", f"{made.second}:2"],
            "baseline": f"{made.second}:0",
        }
        found = client.get(f"{P}/compare", params=given).json()
        assert [each["id"] for each in found["losses"]] == [given["baseline"], *given["candidate"]]
        (stage,) = [each for each in found["stages"] if each["stage"] == "proxy"]
        assert [row["difference"] is None for row in stage["rows"]] == [True, False, False]

    def test_no_comparison_of_what_was_trained_otherwise(self, client, made):
        given = {"candidate": [f"{made.first}:0", f"{made.other}:0"]}
        assert client.get(f"{P}/compare", params=given).status_code == 409

    @pytest.mark.parametrize(
        ("candidates", "status"),
        [(["x"], 422), ([], 422), (["a:1:"], 422), (["a:1"] * 13, 422), (["none-1:0"], 404)],
    )
    def test_refused(self, client, candidates, status):
        answer = client.get(f"{P}/compare", params={"candidate": candidates})
        assert answer.status_code == status


class TestPlots:
    def test_progress(self, client, store, made):
        found = client.get(f"{P}/jobs/{made.first}/plots/progress").json()
        trained = [
            (record.index, record.fitness)
            for record in store.candidates(made.first)
            if record.index and record.state == "done" and record.fitness is not None
        ]
        assert [(dot["candidate"], dot["fitness"]) for dot in found["dots"]] == trained
        assert found["trained"] == len(trained)
        best, expected = -1.0, []
        for index, fitness in trained:
            if fitness > best:
                best = fitness
                expected.append(index)
        assert [dot["candidate"] for dot in found["best"]] == expected
        assert found["baseline"]["mean"] == pytest.approx(0.31)
        assert (found["baseline"]["low"], found["baseline"]["high"]) == (0.30, 0.32)

    def test_funnel(self, client, made):
        found = client.get(f"{P}/jobs/{made.first}/plots/funnel").json()
        assert found["stages"]["drawn"] == 24 * 4
        assert found["rejections"] == {"dull": 24 * 3}
        assert sum(own["verified"] for own in found["origins"].values()) == 24

    def test_front(self, client, made):
        found = client.get(f"{P}/jobs/{made.first}/plots/front").json()
        sizes = [dot["size"] for dot in found["front"]]
        aps = [dot["fitness"] for dot in found["front"]]
        assert sizes == sorted(set(sizes))
        assert aps == sorted(aps)
        assert max(aps) == max(dot["fitness"] for dot in found["dots"])
        assert {each["candidate"] for each in found["confirmed"]} == {5, 8, 9}
        gains = [each["gain"] for each in found["confirmed"]]
        assert gains == sorted(gains, reverse=True)

    def test_many_points_are_thinned_but_not_those_that_matter(self, store, client, monkeypatch):
        monkeypatch.setattr(plots, "MOST_POINTS", 20)
        job = store.create_job("many", {}, "", ["x"], "group-c")
        values = [0.3] * 60
        values[17], values[41] = 0.4, 0.5
        for index, value in enumerate(values):
            add(store, job, index, proxy={0: value}, size=30 - index % 5)
        found = client.get(f"{P}/jobs/{job}/plots/progress").json()
        assert found["trained"] == 59
        assert len(found["dots"]) <= 20
        assert [dot["candidate"] for dot in found["best"]] == [1, 17, 41]
        assert {1, 17, 41} <= {dot["candidate"] for dot in found["dots"]}
        front = client.get(f"{P}/jobs/{job}/plots/front").json()
        assert len(front["dots"]) <= 20
        assert 41 in {dot["candidate"] for dot in front["front"]}

    @pytest.mark.parametrize("plot", ["progress", "front"])
    def test_plots_follow_what_is_written(self, store, client, plot):
        job = store.create_job(f"grows {plot}", {}, "", ["x"], "group-e")
        add(store, job, 0, proxy={0: 0.3})
        add(store, job, 1, proxy={0: 0.35})
        path = f"{P}/jobs/{job}/plots/{plot}"
        assert client.get(path).json()["trained"] == 1
        add(store, job, 2, proxy={0: 0.4})
        found = client.get(path).json()
        assert [dot["candidate"] for dot in found["dots"]] == [1, 2]

    def test_the_front_follows_a_baseline_that_ends_last(self, store, client):
        job = store.create_job("baseline last", {}, "", ["x"], "group-f")
        path = f"{P}/jobs/{job}/plots/front"
        add(store, job, 0, state="open", size=1)
        add(store, job, 1, proxy={0: 0.35}, size=9)
        assert [dot["candidate"] for dot in client.get(path).json()["front"]] == [1]
        train(store, job, 0, "proxy", 0, 0.5)
        store.update_candidate(job, 0, state="done", fitness=0.5)
        assert client.get(path).json()["front"] == []
        add(store, job, 2, proxy={0: 0.6}, size=9)
        assert [dot["candidate"] for dot in client.get(path).json()["front"]] == [2]

    def test_a_job_without_candidates(self, store, client):
        job = store.create_job("none", {}, "", ["x"], "group-d")
        for name in ("progress", "funnel", "front"):
            assert client.get(f"{P}/jobs/{job}/plots/{name}").status_code == 200
            assert client.get(f"{P}/jobs/none-99/plots/{name}").status_code == 404


def test_spaces(client):
    found = client.get(f"{P}/spaces").json()["spaces"]
    assert [each["name"] for each in found] == list(SPACES)
    assert found[0]["operators"] == list(SPACES[found[0]["name"]].operators)


def test_metrics(client, made):
    answer = client.get(f"{P}/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "lossforge_up 1.0" in answer.text
    assert f'lossforge_job_best{{job_id="{made.first}"}}' in answer.text
