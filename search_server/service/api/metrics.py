"""The store's figures for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import CollectorRegistry

from search_server.metrics import OpenStoreCollector
from search_server.service.access import Reader
from search_server.service.api.responses import problems
from search_server.service.state import service_of

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {
            "description": "metrics in Prometheus's text format, as `lossforge metrics` gives them",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
        **problems(),
    },
)
def metrics(request: Request, caller: Reader) -> Response:
    """Jobs, trials, queue and best fitness, read from aggregates."""
    registry = CollectorRegistry()
    registry.register(OpenStoreCollector(service_of(request).store))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)
