"""The errors that a route can answer with, for its documentation."""

from __future__ import annotations

from typing import Any

from search_server.service.problems import MEDIA_TYPE, ProblemBody

_WORDS = {
    400: "it cannot be read",
    401: "no token, or one that is not known",
    403: "the token's role does not suffice, or a browser was tricked into asking",
    404: "there is no such thing",
    408: "the body did not come in time",
    409: "not in this state",
    413: "the body is too large",
    414: "the query is too long",
    415: "a body of another kind is expected",
    422: "a value is not allowed; `errors` says which",
    429: "too many requests, or open streams",
    503: "the store does not answer for the moment",
}
EVERYWHERE = (401, 403, 408, 413, 414, 422, 429, 503)


def problems(*more: int) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route: what any can answer with, and these."""
    schema = ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return {
        status: {
            "model": ProblemBody,
            "description": _WORDS[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemBody"}}},
        }
        for status in sorted({*EVERYWHERE, *more})
    }
