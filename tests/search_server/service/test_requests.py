"""Requests in the store: one job for one key, one service at a time, on either database."""

import time
from concurrent.futures import ThreadPoolExecutor

from search_server.store import Store
from search_server.store.requests import Asked


def new_job(store: Store, key: str | None = None) -> str:
    spec = {"name": "x", "detector": "digits/atss"}
    return store.create_job("x", spec, "model = dict()", ["0"], request=Asked("ada", key))


def test_one_key_is_one_job_however_many_ask_at_once(url: str) -> None:
    with Store.open(url) as store, ThreadPoolExecutor(8) as many:
        jobs = list(many.map(lambda _: new_job(store, "key"), range(16)))
        assert set(jobs) == {"x-1"}
        assert new_job(store, "other") == "x-2"
        assert new_job(store) == "x-3"
        found = store.request_with("key")
        assert found is not None
        assert (found.job_id, found.by, found.settled, found.tries) == ("x-1", "ada", False, 0)
        assert [request.job_id for request in store.open_requests()] == ["x-1", "x-2", "x-3"]
        assert store.waiting_requests() == 3


def test_one_service_holds_a_request_and_not_for_ever(url: str) -> None:
    with Store.open(url) as store, ThreadPoolExecutor(8) as many:
        job = new_job(store)
        held = list(many.map(lambda n: store.hold_request(job, f"service {n}", 60.0), range(8)))
        assert held.count(True) == 1
        holder = f"service {held.index(True)}"
        store.note_request(job, note="begun", tried=1, keep=True)
        assert not store.hold_request(job, "another", 60.0)
        assert store.hold_request(job, holder, 0.2)
        found = store.request_of(job)
        assert found is not None
        assert (found.held_by, found.tries, found.note) == (holder, 1, "begun")
        assert found.held_until is not None
        assert found.held_until > store.clock()
        time.sleep(0.3)
        assert store.hold_request(job, "another", 60.0)
        store.note_request(job, tried=-1)
        assert store.hold_request(job, holder, 60.0)
        store.note_request(job, settled=True)
        assert store.open_requests() == []
        store.reopen_request(job, "bob")
        found = store.request_of(job)
        assert found is not None
        assert (found.settled, found.tries, found.by) == (False, 0, "ada")


def test_a_job_of_the_command_line_is_seen_to_once_that_is_asked_for(url: str) -> None:
    with Store.open(url) as store:
        job = store.create_job("x", {"name": "x"}, "model = dict()", ["0"])
        assert store.request_of(job) is None
        assert store.open_requests() == []
        store.reopen_request(job, "ada")
        assert [(each.job_id, each.by) for each in store.open_requests()] == [(job, "ada")]
