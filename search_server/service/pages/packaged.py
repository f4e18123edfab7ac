"""The one script that is not ours, from its own package: plotly draws the live plots."""

from __future__ import annotations

import gzip
from functools import cache
from importlib.metadata import version
from importlib.resources import files

from fastapi import APIRouter, Request
from fastapi.responses import Response

router = APIRouter()
ETAG = f'"plotly-{version("plotly")}"'
KEPT = {
    "Cache-Control": "public, max-age=604800",
    "ETag": ETAG,
    "Vary": "Accept-Encoding",
}


@cache
def _compressed() -> bytes:
    script = files("plotly") / "package_data" / "plotly.min.js"
    return gzip.compress(script.read_bytes(), 6)


@router.get("/static/plotly.min.js")
def plotly(request: Request) -> Response:
    """It is large, hence packed once, and kept by browsers for a week."""
    if request.headers.get("if-none-match") == ETAG:
        return Response(status_code=304, headers=KEPT)
    packed = _compressed()
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers = {**KEPT, "Content-Encoding": "gzip"}
        return Response(packed, media_type="text/javascript", headers=headers)
    return Response(gzip.decompress(packed), media_type="text/javascript", headers=KEPT)
