"""A candidate over the API: record, trials, ancestors, curves, formula, surfaces, files."""

import io
import json
import zipfile

import numpy as np
import pytest
from fastapi.testclient import TestClient
from made_search import GIOU, SECRET, Made, add, definition, expression, make, train

from primitives import evaluate, parse
from search_server.service.app import make_app
from search_server.service.settings import ServiceSettings
from search_server.service.texts import placeless
from search_server.store import Store

PAP = {
    "name": "pap",
    "cls": {
        "type": "ranking",
        "loss": "pap",
        "functions": {
            name: [[0.2, 0.1], [0.4, 0.3], [0.8, 0.6]] for name in ("H2", "I2", "I3", "I1", "H1")
        },
    },
    "bbox": None,
    "iou_centerness": False,
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with Store.open(str(tmp_path_factory.mktemp("store") / "store.db")) as opened:
        yield opened


@pytest.fixture(scope="module")
def made(store) -> Made:
    made = make(store)
    add(store, made.first, 24, proxy={0: 0.2}, given=PAP)
    add(store, made.first, 25, given={"name": "later", "cls": {"type": "from the future"}})
    train(store, made.first, 5, "test", 500, None, log=f"Traceback in {SECRET}")
    return made


@pytest.fixture(scope="module")
def client(store, made) -> TestClient:
    app = make_app(store, ServiceSettings(), tokens_wanted=False)
    return TestClient(app, base_url="http://127.0.0.1")


@pytest.fixture
def place(made):
    return lambda index, more="": f"/api/v1/jobs/{made.first}/candidates/{index}{more}"


def test_a_candidate_in_full(client, store, made, place):
    found = client.get(place(9)).json()
    record = store.candidate(made.first, 9)
    assert found["id"] == f"{made.first}:9"
    assert found["definition"] == definition(9)
    assert found["parents"] == list(record.parents)
    assert [(t["stage"], t["seed"]) for t in found["trials"]] == [
        ("proxy", 0), ("proxy", 7), ("confirm", 100), ("confirm", 101), ("confirm", 102),
    ]  # fmt: skip
    assert found["judged"]["confirm"]["difference"]["count"] == 3
    assert found["confirmed"]


def test_ancestors_come_breadth_first_each_once(client, store, made, place):
    found = client.get(place(23)).json()
    generation, expected = [*store.candidate(made.first, 23).parents], {}
    number = 1
    while generation:
        following = []
        for index in generation:
            if index not in expected:
                expected[index] = number
                following += store.candidate(made.first, index).parents
        generation, number = following, number + 1
    assert {each["index"]: each["generation"] for each in found["ancestors"]} == expected
    assert [each["generation"] for each in found["ancestors"]] == sorted(expected.values())
    assert found["ancestors_complete"]


def test_a_long_line_of_ancestors_is_cut_and_says_so(tmp_path):
    with Store.open(str(tmp_path / "long.db")) as store:
        job = store.create_job("long", {}, "", ["x"], "g")
        add(store, job, 0)
        for index in range(1, 60):
            add(store, job, index, (index - 1,))
        app = make_app(store, ServiceSettings(), tokens_wanted=False)
        found = TestClient(app, base_url="http://127.0.0.1").get(
            f"/api/v1/jobs/{job}/candidates/59"
        )
        ancestors = [each["index"] for each in found.json()["ancestors"]]
        assert ancestors == list(range(58, 28, -1))
        assert not found.json()["ancestors_complete"]


def test_nothing_tells_where_files_lie(client, place):
    for index in (5, 11, 24):
        for more in ("", "/curves", "/formula", "/plots/curves"):
            answer = client.get(place(index, more))
            assert answer.status_code == 200
            assert "somebody" not in answer.text
            assert "Traceback" not in answer.text
    assert "run.log" in client.get(place(5)).text  # the name alone remains


def test_nor_does_a_jobs_reason(client, store, made):
    store.set_job_state(made.other, "running")
    store.set_job_state(made.other, "failed", f"see {SECRET}, of sqlite:////home/somebody/store.db")
    for place in ("", f"/{made.other}"):
        answer = client.get(f"/api/v1/jobs{place}")
        assert "somebody" not in answer.text
        assert "run.log, of the store" in answer.text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("OSError: '/data/a b/x.json' is gone", "OSError: '…/a b/x.json' is gone"),
        ("~/secrets/key.pem", "…/key.pem"),
        (r"C:\Users\me\x.py failed", r"…\x.py failed"),
        ("postgresql+psycopg://me:pw@host/db is away", "the store is away"),
        ("AP 1/2, see docs/faults.md and http://head:8265/jobs/a", None),
        ("model.bbox_head._ious, at 3/4 of the steps", None),
        ("Div(I,U)/2", None),
    ],
)
def test_texts_without_places(text, shown):
    assert placeless(text) == (text if shown is None else shown)


@pytest.mark.parametrize("more", ["", "/curves", "/formula", "/export", "/plots/surface"])
def test_no_such_candidate(client, made, place, more):
    assert client.get(place(999, more)).status_code == 404
    assert client.get(f"/api/v1/jobs/none-1/candidates/0{more}").status_code == 404
    assert client.get(f"/api/v1/jobs/a%00b/candidates/0{more}").status_code == 404
    for none_so_large in (2**31, 99_999_999_999, 10**30):
        assert client.get(place(none_so_large, more)).status_code == 404
    assert client.get(place(-1, more)).status_code == 422


def test_curves(client, place):
    (one, *_) = client.get(place(5, "/curves")).json()["trials"]
    assert one["curves"]["step"] == [2.0, 4.0]


def test_curves_beside_the_baseline_of_the_same_seeds(client, place):
    found = client.get(place(5, "/plots/curves")).json()
    own = [(s["stage"], s["seed"]) for s in found["series"] if not s["baseline"]]
    base = [(s["stage"], s["seed"]) for s in found["series"] if s["baseline"]]
    assert set(base) == set(own) - {("test", 500)}
    assert found["names"] == ["loss"]
    assert found["series"][0]["x"] == [2.0, 4.0]


def test_a_formula_is_of_the_expression(client, place):
    branches = client.get(place(9, "/formula")).json()["branches"]
    assert branches["cls"]["expression"] == expression(9)
    assert branches["bbox"]["latex"] == [r"1 + \frac{E - U}{E} - \frac{I}{U}"]
    assert branches["bbox"]["mathml"][0].startswith("<math ")
    assert written(branches["bbox"]["tree"]) == GIOU
    assert branches["cls"]["words"]["X"] == "logit"


def written(node) -> str:
    """A tree in prefix form again."""
    if node["operator"]:
        return f"{node['operator']}({','.join(map(written, node['arguments']))})"
    return node["input"] or f"{node['value']:g}"


def test_a_parameterized_ap_loss_has_its_functions(client, place):
    cls = client.get(place(24, "/formula")).json()["branches"]["cls"]
    assert cls["kind"] == "ranking"
    points = [[0, 0], [0.2, 0.1], [0.4, 0.3], [0.8, 0.6], [1, 1]]
    assert cls["functions"]["I1"] == points
    surface = client.get(place(24, "/plots/surface")).json()
    assert surface == {
        "surfaces": [],
        "functions": {"cls": dict.fromkeys(cls["functions"], points)},
    }


def test_what_a_later_version_wrote_is_no_fault_of_ours(client, place):
    for more in ("/formula", "/plots/surface"):
        assert client.get(place(25, more)).status_code == 409


def test_surfaces_are_what_the_expressions_give(client, place):
    cls, box = client.get(place(9, "/plots/surface")).json()["surfaces"]
    x, y = np.meshgrid(cls["x"]["values"], cls["y"]["values"])
    flat = x.ravel()[:, None]
    hot = np.ones_like(flat)
    given = {"X": flat, "Q": y.ravel()[:, None], "PY": hot, "NY": 1 - hot}
    value, gradient = evaluate(parse(expression(9), "binary_cls"), given, {"X": hot})
    assert np.allclose(np.array(cls["value"]).ravel(), value[:, 0], rtol=1e-5)
    assert np.allclose(np.array(cls["gradient"]).ravel(), gradient[:, 0], rtol=1e-5)
    assert (min(cls["x"]["values"]), max(cls["x"]["values"])) == (-8, 8)
    # background: nobody's label, and no overlap
    assert np.allclose(
        cls["background"][0], [-1 / (1 + np.exp(-v)) * -v for v in cls["x"]["values"]]
    )

    iou, ratio = np.meshgrid(box["x"]["values"], box["y"]["values"])
    assert np.allclose(box["value"], 1 - iou + (ratio - 1) / ratio, atol=1e-6)
    assert np.allclose(box["gradient"], -1.0, atol=1e-6)


class TestFiles:
    def test_the_definition(self, client, made, place):
        answer = client.get(place(9, "/export"), params={"format": "json"})
        assert json.loads(answer.content) == definition(9)
        assert answer.headers["content-disposition"] == (
            f'attachment; filename="{made.first}-9.json"'
        )

    def test_the_config_names_no_place(self, client, made, place):
        answer = client.get(place(9, "/export"))
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/x-python")
        assert answer.headers["content-disposition"] == f'attachment; filename="{made.first}-9.py"'
        text = answer.text
        assert expression(9) in text
        assert "ann_file='data/digits-v1/search_train.json'" in text
        assert not [line for line in text.splitlines() if "'/" in line or '"/' in line]

    def test_the_config_is_one(self, client, place, tmp_path):
        from mmengine.config import Config

        file = tmp_path / "config.py"
        file.write_bytes(client.get(place(9, "/export")).content)
        config = Config.fromfile(str(file))
        assert config.model.bbox_head.loss_cls.expression == expression(9)
        assert config.train_dataloader.dataset.data_prefix.img == "data/digits-v1/search_train"

    def test_standalone_is_the_config_and_its_module(self, client, made, place):
        answer = client.get(place(9, "/export"), params={"format": "standalone"})
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            config, module = archive.namelist()
            texts = {name: archive.read(name).decode() for name in (config, module)}
        assert config == f"{made.first}-9.py"
        for name, text in texts.items():
            compile(text, name, "exec")
        assert f"'{module.removesuffix('.py')}'" in texts[config]

    def test_only_what_was_trained(self, client, place):
        assert client.get(place(3, "/export")).status_code == 409
        assert client.get(place(11, "/export")).status_code == 409
        assert client.get(place(9, "/export"), params={"format": "exe"}).status_code == 422
