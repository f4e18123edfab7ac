"""The client, and the verbs with --server, against a service on a port that wants tokens."""

import json
import socket
import threading
import time

import pytest
import uvicorn
from made_search import SECRET, expression, make
from typer.testing import CliRunner

from search_server.cli.app import app as command_line
from search_server.client import Client
from search_server.errors import ServiceError
from search_server.service.app import make_app
from search_server.service.settings import ServiceSettings
from search_server.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with Store.open(str(tmp_path_factory.mktemp("store") / "store.db")) as opened:
        yield opened


@pytest.fixture(scope="module")
def made(store):
    return make(store)


@pytest.fixture(scope="module")
def token(store):
    return store.create_token("reader", "read")


@pytest.fixture(scope="module")
def url(store, made):
    app = make_app(store, ServiceSettings(), tokens_wanted=True)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture
def client(url, token):
    with Client(url, token) as opened:
        yield opened


@pytest.fixture
def lossforge(url, token, monkeypatch):
    """Runs a verb against the service; gives what it printed."""
    monkeypatch.setenv("LOSSFORGE_TOKEN", token)

    def run(*arguments: str, server: bool = True) -> str:
        more = ["--server", url] if server else []
        result = CliRunner().invoke(command_line, [*arguments, *more], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


class TestClient:
    def test_jobs_and_a_job(self, client, made):
        assert [job["id"] for job in client.jobs()] == [made.other, made.second, made.first]
        assert list(client.jobs("done")) == []
        assert client.job(made.first)["candidates"] == 23

    def test_pages_are_followed(self, client, made):
        whole = [row["id"] for row in client.leaderboard(job=made.first, limit=200)]
        assert [row["id"] for row in client.leaderboard(job=made.first, limit=5)] == whole
        assert len(whole) == 24

    def test_a_candidate(self, client, made):
        assert client.candidate(made.first, 9)["cls"] == expression(9)
        assert client.curves(made.first, 9)["trials"]
        assert client.formula(made.first, 9)["branches"]["cls"]["expression"] == expression(9)
        assert json.loads(client.export(made.first, 9, "json"))["name"] == "candidate-9"

    def test_compare_and_verify(self, client, made):
        found = client.compare(f"{made.first}:0", f"{made.first}:9")
        assert len(found["losses"]) == 2
        assert client.verify("Sub(1,Div(I,U))", "box")["accepted"]

    def test_events_end_with_the_job(self, client, store, made):
        for state in ("running", "done"):
            store.set_job_state(made.other, state)
        events = list(client.events(made.other))
        assert [event["state"] for event in events] == ["done"]
        assert events[0]["job"] == made.other

    def test_what_is_wrong_is_said(self, client, url, made):
        with pytest.raises(ServiceError, match="there is no job"):
            client.job("none-1")
        with pytest.raises(ServiceError, match="no such candidate"):
            client.candidate(made.first, 99)
        with pytest.raises(ServiceError, match="end of text at position 4"):
            client.verify("Neg(", "box")
        with pytest.raises(ServiceError, match="nothing here"):
            client.job("a/b")
        with Client(url) as nobody, pytest.raises(ServiceError, match="a token is needed"):
            list(nobody.jobs())
        with Client(url, "lossforge_x") as wrong, pytest.raises(ServiceError, match="not known"):
            list(wrong.jobs())

    def test_a_reader_changes_nothing(self, client, made):
        with pytest.raises(ServiceError, match="needs the role submit"):
            client.cancel(made.first)
        with pytest.raises(ServiceError, match="needs the role submit"):
            client.submit("name: x")

    @pytest.mark.parametrize("url", ["http://127.0.0.1:9", "nowhere", "http://[", "ftp://x"])
    def test_no_service(self, url):
        with pytest.raises(ServiceError, match=r"no answer from|is no URL"), Client(url) as client:
            list(client.jobs())


class TestVerbs:
    def test_jobs(self, lossforge, made):
        assert made.first in lossforge("jobs")
        assert len(json.loads(lossforge("jobs", "--json"))["jobs"]) == 3

    def test_leaderboard_is_as_from_the_store(self, lossforge, store, made):
        given = ("leaderboard", made.first, "--limit", "30")
        here = lossforge(*given, "--store", store.url, server=False)
        shown = here.replace(SECRET, "…/run.log")  # a shorter word moves the ends of lines
        assert lossforge(*given).split() == shown.split()
        assert "more candidates" in lossforge("leaderboard", made.first, "--limit", "3")
        assert "digits/retinanet" in lossforge("leaderboard", "--limit", "100")

    def test_show_is_as_from_the_store(self, lossforge, store, made):
        there = lossforge("show", f"{made.first}:9")
        here = lossforge("show", f"{made.first}:9", "--store", store.url, server=False)
        assert there == here

    def test_status(self, lossforge, made):
        assert "23" in lossforge("status", made.first)
        assert json.loads(lossforge("status", made.first, "--json"))["id"] == made.first

    def test_export(self, lossforge, made, tmp_path):
        file = tmp_path / "best.py"
        told = lossforge("export", made.first, "--standalone", "-o", str(file), "--json")
        config, module = json.loads(told)["files"]
        assert config == str(file)
        assert f"'{module.rpartition('/')[2].removesuffix('.py')}'" in file.read_text()
        again = CliRunner().invoke(
            command_line, ["export", made.first, "-o", str(file), "--server", "http://127.0.0.1:9"]
        )
        assert again.exit_code != 0

    def test_the_service_may_stand_in_the_environment(self, lossforge, url, made, monkeypatch):
        monkeypatch.setenv("LOSSFORGE_SERVER", url)
        assert made.first in lossforge("jobs", server=False)

    def test_one_of_server_and_store(self, url, store):
        given = ["jobs", "--server", url, "--store", store.url]
        result = CliRunner().invoke(command_line, given)
        assert isinstance(result.exception, ServiceError)

    def test_who_may_submits_resumes_and_cancels(self, lossforge, store, tmp_path, monkeypatch):
        monkeypatch.setenv("LOSSFORGE_TOKEN", store.create_token("submitter", "submit"))
        spec = tmp_path / "small.yaml"
        spec.write_text(
            "name: small\ndetector: digits/atss\nbranches: {bbox: {space: box}}\n"
            "limits: {steps: 400}\n"
        )
        sent = json.loads(lossforge("submit", str(spec), "--json"))
        assert (sent["id"], sent["state"]) == ("small-1", "created")
        assert lossforge("submit", str(spec)).startswith("job small-2 is created\n")  # one more
        store.note_request("small-1", settled=True)
        assert lossforge("resume", "small-1").startswith("job small-1 is created\n")
        assert [(each.job_id, each.by) for each in store.open_requests()] == [
            ("small-1", "submitter"),
            ("small-2", "submitter"),
        ]
        assert json.loads(lossforge("cancel", "small-2", "--json"))["state"] == "cancelled"
        assert store.job("small-2").state == "cancelled"
        with pytest.raises(ServiceError, match="is cancelled and cannot go on"):
            lossforge("resume", "small-2")
        monkeypatch.setenv("LOSSFORGE_TOKEN", store.create_token("looker", "read"))
        with pytest.raises(ServiceError, match="needs the role submit"):
            lossforge("cancel", "small-1")
        assert store.job("small-1").state == "created"
