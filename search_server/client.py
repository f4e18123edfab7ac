"""A client of the service: what its API answers, as plain JSON data.

with Client("http://127.0.0.1:8000") as client:
    for event in client.events("digits-atss-1"):
        print(event["state"], event["best"])
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Self, cast
from urllib.parse import quote

import httpx2

from search_server.errors import ServiceError

Json = dict[str, Any]
Query = str | int | float | bool | Sequence[str] | None


class Client:
    """A service at a URL. Every method raises ServiceError with what the service says is wrong.

    Args:
        token: of `lossforge token create`; None where the service wants none.
        timeout: seconds for an answer.
    """

    def __init__(self, url: str, token: str | None = None, timeout: float = 60.0) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        try:
            self._http = httpx2.Client(
                base_url=f"{url.rstrip('/')}/api/v1", headers=headers, timeout=timeout
            )
        except (httpx2.InvalidURL, UnicodeError) as error:
            raise ServiceError(f"{url!r} is no URL of a service: {error}") from None
        self._url = url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def jobs(self, state: str | None = None) -> Iterator[Json]:
        """The jobs, the newest first."""
        return self._pages("/jobs", "jobs", state=state)

    def job(self, job: str) -> Json:
        """One job: its spec, and where it stands."""
        return self._json("GET", _place(job))

    def events(self, job: str) -> Iterator[Json]:
        """Where a job stands, now and at every change; ends with the job."""
        with self._open("GET", f"{_place(job)}/events") as answer:
            for line in answer.iter_lines():
                if line.startswith("data:"):
                    yield json.loads(line[5:])

    def leaderboard(self, **filters: Query) -> Iterator[Json]:
        """Candidates, the best first; filters are those of the API: job, confirmed, sort, ..."""
        return self._pages("/leaderboard", "rows", **filters)

    def candidate(self, job: str, index: int) -> Json:
        """One candidate with its trials and ancestors."""
        return self._json("GET", _place(job, index))

    def curves(self, job: str, index: int) -> Json:
        """The training curves of a candidate."""
        return self._json("GET", f"{_place(job, index)}/curves")

    def formula(self, job: str, index: int) -> Json:
        """What a candidate computes: LaTeX, MathML, trees."""
        return self._json("GET", f"{_place(job, index)}/formula")

    def export(
        self, job: str, index: int, form: Literal["config", "standalone", "json"] = "config"
    ) -> bytes:
        """A candidate as a file: a config, a zip of a config and its module, or its definition."""
        with self._open("GET", f"{_place(job, index)}/export", params={"format": form}) as answer:
            return answer.read()

    def compare(self, *candidates: str, baseline: str | None = None) -> Json:
        """Candidates `JOB:INDEX` against the first, or against `baseline`."""
        return self._json("GET", "/compare", params=_given(candidate=candidates, baseline=baseline))

    def verify(self, expression: str, space: str | Json) -> Json:
        """Whether an expression is a loss, with numbers."""
        return self._json("POST", "/verify", json={"expression": expression, "space": space})

    def submit(self, spec: Json | str, key: str | None = None) -> Json:
        """Submit a search: a spec as data, or its YAML. The same `key` gives the same job again."""
        headers = {} if key is None else {"Idempotency-Key": key}
        if isinstance(spec, str):
            headers["Content-Type"] = "application/yaml"
            return self._json("POST", "/jobs", content=spec.encode(), headers=headers)
        return self._json("POST", "/jobs", json={"spec": spec}, headers=headers)

    def cancel(self, job: str) -> Json:
        """End a job for good."""
        return self._json("POST", f"{_place(job)}/cancel")

    def resume(self, job: str, *, force: bool = False) -> Json:
        """Go on with a job that was interrupted or lost."""
        return self._json("POST", f"{_place(job)}/resume", params={"force": force})

    def _pages(self, path: str, name: str, **query: Query) -> Iterator[Json]:
        cursor: str | None = ""
        while cursor is not None:
            found = self._json("GET", path, params=_given(**query, cursor=cursor or None))
            yield from found[name]
            cursor = found["next"]

    def _json(self, method: str, path: str, **given: Any) -> Json:
        with self._open(method, path, **given) as answer:
            try:
                return cast(Json, json.loads(answer.read()))
            except ValueError:
                raise ServiceError(f"{self._url} is no service of Lossforge") from None

    @contextmanager
    def _open(self, method: str, path: str, **given: Any) -> Iterator[httpx2.Response]:
        try:
            with self._http.stream(method, path, **given) as answer:
                if not answer.is_success:
                    answer.read()
                    raise ServiceError(f"{self._url} says: {_detail(answer)}")
                yield answer
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            why = str(error) or type(error).__name__
            raise ServiceError(f"no answer from {self._url}: {why}") from None


def _place(job: str, index: int | None = None) -> str:
    place = f"/jobs/{quote(job, safe='')}"
    return place if index is None else f"{place}/candidates/{index}"


def _given(**query: Query) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}


def _detail(answer: httpx2.Response) -> str:
    """What a problem says, and which fields are to blame beyond the first."""
    try:
        body = answer.json()
        others = [f"{each['field']}: {each['allowed']}" for each in body.get("errors", [])[1:]]
        return "; ".join([str(body["detail"]), *others])
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{answer.status_code} {answer.reason_phrase}"
