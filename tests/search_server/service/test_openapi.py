"""The API's description: it is valid, complete, and what the service does.

`LOSSFORGE_FUZZ=50000` raises the number of requests that are made up from it.
"""

import contextlib
import os
from unittest import SkipTest

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from made_search import make
from openapi_spec_validator import validate
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from search_server.service.app import make_app
from search_server.service.settings import Bounds, ServiceSettings
from search_server.store import Store

EXAMPLES = int(os.environ.get("LOSSFORGE_FUZZ", "0"))
READ = ("/api/v1/verify", "/api/v1/formula")  # by POST, and nothing is changed
ALWAYS = {"401", "403", "413", "414", "422", "429", "503"}
BOUNDS = Bounds(requests=10**9, changes=10**9)


def of_reading(method: str, path: str) -> bool:
    return (method == "get" and not path.endswith("/events")) or path in READ


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with Store.open(str(tmp_path_factory.mktemp("store") / "store.db")) as store:
        make(store)
        yield make_app(store, ServiceSettings(bounds=BOUNDS), tokens_wanted=False)


@pytest.fixture(scope="module")
def document(app) -> dict:
    return TestClient(app, base_url="http://127.0.0.1").get("/api/openapi.json").json()


@pytest.fixture(scope="module")
def api_schema(app, document):
    """What requests are made up from, with ids of the store among the examples."""
    jobs = ["made-1", "made-2", "other-1"]
    for path, item in document["paths"].items():
        for method, operation in item.items():
            for parameter in operation.get("parameters", []):
                if parameter["name"] in ("job_id", "job") and of_reading(method, path):
                    known = {"type": "string", "enum": [*jobs, "none-1", "%2e%2e", "é"]}
                    parameter["schema"] = known
                    parameter.pop("example", None)
                    parameter.pop("examples", None)
                if parameter["name"] == "index":
                    parameter["schema"] = {"type": "integer", "minimum": -1, "maximum": 30}
    made = schemathesis.openapi.from_dict(document)
    made.app = app  # asked in this process
    return made


def operations(document):
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield f"{method} {path}", path, operation


def test_it_is_valid(document):
    validate(document)


def test_every_operation_says_what_it_does_and_what_can_go_wrong(document):
    seen = 0
    for name, path, operation in operations(document):
        assert operation["description"].strip(), name
        assert operation["tags"], name
        codes = set(operation["responses"])
        assert codes >= ALWAYS, name
        if "{job_id}" in path:
            assert "404" in codes, name
        for code, response in operation["responses"].items():
            assert response["description"].strip(), (name, code)
            if code >= "400":
                assert "application/problem+json" in response["content"], (name, code)
        seen += 1
    assert seen > 20


def test_every_field_of_an_answer_has_a_type(document):
    for name, model in document["components"]["schemas"].items():
        for field, schema in model.get("properties", {}).items():
            known = {"type", "$ref", "anyOf", "allOf", "oneOf", "enum", "const"}
            assert known & set(schema), f"{name}.{field}"


CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)


@pytest.mark.timeout(0 if EXAMPLES else 600)
def test_it_answers_as_it_says(api_schema):
    asked = 0
    tried = [
        operation
        for found in api_schema.get_all_operations()
        if of_reading((operation := found.ok()).method, operation.path)
    ]
    each = max(4, EXAMPLES // (len(tried) * len(GenerationMode)))
    for operation in tried:
        for mode in GenerationMode:

            @settings(
                max_examples=each,
                deadline=None,
                derandomize=not EXAMPLES,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def check(case):
                nonlocal asked
                asked += 1
                answer = case.call(base_url="http://127.0.0.1")
                case.validate_response(answer, checks=list(CHECKS))
                assert b"Traceback" not in answer.content
                assert b"somebody" not in answer.content
                assert answer.elapsed < 2 or not EXAMPLES, f"{case.path}: {answer.elapsed} s"

            # what has no parameter cannot be asked in a wrong way
            with contextlib.suppress(Unsatisfiable, SkipTest):
                check()
    assert len(tried) > 15
    assert asked > 100
