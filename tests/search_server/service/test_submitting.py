"""Jobs submitted, checked, cancelled and resumed: by JSON, by YAML, by the form."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient

from search_server.service.form_spec import spec_of_form
from search_server.service.settings import ServiceSettings
from search_server.store import Store
from search_server.store.requests import Asked

Client = Callable[..., TestClient]
PAGE = {"accept": "text/html"}
SPEC: dict[str, Any] = {
    "name": "small",
    "detector": "digits/atss",
    "branches": {"cls": {"space": "binary_cls"}, "bbox": {"space": "box"}},
    "limits": {"steps": 400},
}


def word_and_nonce(page: str) -> dict[str, str]:
    """What a browser sends back of a form."""
    found = {}
    for name in ("csrf", "nonce"):
        match = re.search(rf'name="{name}" value="([\w-]+)"', page)
        assert match is not None
        found[name] = match[1]
    return found


def test_a_job_is_submitted_once_however_often_it_is_asked(store: Store, client: Client) -> None:
    text = store.create_token("ada", "submit")
    other = store.create_token("bob", "submit")
    ada, bob = client(tokens=True, token=text), client(tokens=True, token=other)
    key = {"Idempotency-Key": "first"}
    made = ada.post("/api/v1/jobs", json={"spec": SPEC}, headers=key)
    assert made.status_code == 201
    assert made.headers["location"] == "/api/v1/jobs/small-1"
    assert made.json()["state"] == "created"
    again = ada.post("/api/v1/jobs", json={"spec": SPEC}, headers=key)
    assert (again.status_code, again.json()["id"]) == (200, "small-1")
    yaml_text = yaml.safe_dump(SPEC)
    headers = {**key, "Content-Type": "application/yaml"}
    theirs = bob.post("/api/v1/jobs", content=yaml_text, headers=headers)
    assert (theirs.status_code, theirs.json()["id"]) == (201, "small-2")
    assert [(r.job_id, r.by) for r in store.open_requests()] == [
        ("small-1", "ada"),
        ("small-2", "bob"),
    ]


def test_all_that_is_wrong_is_said_at_once(client: Client) -> None:
    wrong = {
        **SPEC,
        "detector": "coco/retinanet",
        "data": "imagenet",
        "windows": 3,
        "funnel": {"proxy": {"steps": -3, "seeds": ["x"]}},
    }
    refused = client().post("/api/v1/specs/check", json={"spec": wrong})
    assert refused.status_code == 422
    fields = {each["field"]: each["allowed"] for each in refused.json()["errors"]}
    assert fields.keys() == {
        "detector",
        "data",
        "windows",
        "funnel.proxy.steps",
        "funnel.proxy.seeds.0",
    }
    assert "digits/atss" in fields["detector"]
    assert "did you mean window?" in fields["windows"]


def test_what_fits_no_detector_is_said_too(client: Client) -> None:
    asked = client()
    spec = {**SPEC, "branches": {"cls": {"space": "multi_cls"}, "bbox": {"space": "box"}}}
    refused = asked.post("/api/v1/specs/check", json={"spec": spec})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "branches.cls.space"
    right = asked.post("/api/v1/specs/check", json={"spec": SPEC})
    assert right.status_code == 200
    assert right.json()["spec"]["detector"] == "digits/atss"
    assert right.json()["spec"]["data"] == "digits"


def test_the_settings_bound_what_may_be_asked_for(client: Client, new_job: Any) -> None:
    settings = ServiceSettings.model_validate(
        {
            "most": {"cpus": 2, "trial_steps": 100, "candidates": 20, "job_hours": 3},
            "bounds": {"waiting_jobs": 1},
        }
    )
    asked = client(settings)
    spec = {**SPEC, "resources": {"cpus": 4}, "candidates": 50}
    refused = asked.post("/api/v1/specs/check", json={"spec": spec}).json()
    assert [each["field"] for each in refused["errors"]] == [
        "resources.cpus",
        "funnel.proxy.steps",
        "candidates",
        "limits.job_hours",
    ]
    new_job(request=Asked("ada"))
    full = asked.post("/api/v1/jobs", json={"spec": SPEC})
    assert full.status_code == 429
    assert int(full.headers["retry-after"]) > 0


@pytest.mark.parametrize("state", ["created", "interrupted", "failed"])
def test_cancelled_and_resumed(store: Store, client: Client, new_job: Any, state: Any) -> None:
    job = new_job()  # by the command line: the service sees to it once it is told to
    if state != "created":
        store.set_job_state(job, "running")
        store.set_job_state(job, state)
    asked = client()
    resumed = asked.post(f"/api/v1/jobs/{job}/resume")
    assert (resumed.status_code, resumed.json()["state"]) == (202, state)
    assert [request.job_id for request in store.open_requests()] == [job]
    cancelled = asked.post(f"/api/v1/jobs/{job}/cancel")
    assert (cancelled.status_code, cancelled.json()["state"]) == (202, "cancelled")
    assert asked.post(f"/api/v1/jobs/{job}/resume").status_code == 409
    assert asked.post(f"/api/v1/jobs/{job}/cancel").status_code == 202


def test_what_runs_is_cancelled_by_its_controller(
    store: Store, client: Client, new_job: Any
) -> None:
    job, done = new_job(), new_job()
    for each in (job, done):
        store.set_job_state(each, "running")
    store.set_job_state(done, "done")
    asked = client()
    assert asked.post(f"/api/v1/jobs/{job}/cancel").json()["state"] == "cancelling"
    assert store.leave_job(job, "interrupted") == "cancelled"
    refused = asked.post(f"/api/v1/jobs/{done}/cancel")
    assert refused.status_code == 409
    assert asked.post(f"/api/v1/jobs/{done}/resume").status_code == 409
    assert asked.post("/api/v1/jobs/nobody-1/cancel").status_code == 404


def test_a_form_that_is_sent_twice_submits_once(store: Store, client: Client) -> None:
    browser = client()
    page = browser.get("/submit", headers=PAGE).text
    form = {
        **word_and_nonce(page),
        "form": "fields",
        "name": "by form",
        "detector": "digits/retinanet",
        "data": "digits",
        "search": "both",
        "funnel.proxy.steps": "2O",
        "limits.steps": "300",
        "confirm": "true",
        "funnel.confirm.seeds": "2",
    }
    wrong = browser.post("/submit", data=form, headers=PAGE)
    assert wrong.status_code == 422
    assert 'id="f-funnel-proxy-steps-error"' in wrong.text
    assert 'value="by form"' in wrong.text
    assert word_and_nonce(wrong.text)["nonce"] == form["nonce"]
    form["funnel.proxy.steps"] = "20"
    places = set()
    for _ in range(2):
        sent = browser.post("/submit", data=form, headers=PAGE, follow_redirects=False)
        assert sent.status_code == 303
        places.add(sent.headers["location"])
    assert places == {"/jobs/by-form-1"}
    spec = store.job("by-form-1").spec
    assert spec["funnel"]["proxy"]["steps"] == 20
    assert spec["funnel"]["confirm"]["seeds"] == 2
    assert spec["branches"]["cls"]["space"] == "binary_cls"


def test_yaml_is_shown_again_with_what_is_wrong(client: Client) -> None:
    browser = client()
    page = browser.get("/submit?preset=demo", headers=PAGE).text
    assert "population: 8" in page
    form = {**word_and_nonce(page), "form": "yaml", "yaml": "name: a\n</textarea><b>: 1\n"}
    wrong = browser.post("/submit", data=form, headers=PAGE)
    assert wrong.status_code == 422
    assert "&lt;/textarea&gt;&lt;b&gt;" in wrong.text
    assert "</textarea><b>" not in wrong.text
    form["yaml"] = "name: a\ndetector: /etc/passwd\nfunnel: {proxy: {steps: -1}}\n"
    wrong = browser.post("/submit", data=form, headers=PAGE)
    below = wrong.text.partition('id="f-yaml-error"')[2].partition("</p>")[0]
    assert "detector: it must be one of" in below
    assert "funnel.proxy.steps: " in below
    assert 'id="f-detector-error"' not in wrong.text  # the other form is as it was
    assert browser.get("/submit?preset=../settings").status_code == 404


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ("both", {"branches": {"cls": {"space": "multi_cls"}, "bbox": {"space": "box"}}}),
        ("bbox", {"branches": {"bbox": {"space": "box"}}}),
        ("autoloss_zero", {"search_space": "autoloss_zero"}),
    ],
)
def test_what_the_form_means(search: str, expected: dict[str, Any]) -> None:
    fields = {"name": " x ", "search": search, "funnel.proxy.seeds": "0, 7", "candidates": ""}
    expected |= {"name": "x", "funnel": {"proxy": {"seeds": ["0", "7"]}}}
    assert spec_of_form(fields, lambda _: "multi_cls") == expected
