"""Whether the service lives and whether it is of use, for who looks after processes."""

from __future__ import annotations

from fastapi import APIRouter, Request
from sqlalchemy import text

from search_server.service.api.responses import problems
from search_server.service.models import Health
from search_server.service.state import service_of

router = APIRouter(tags=["health"])


@router.get("/healthz", responses=problems())
async def alive() -> Health:
    """The process answers."""
    return Health(status="ok")


@router.get("/readyz", responses=problems())
def ready(request: Request) -> Health:
    """The store answers, too."""
    with service_of(request).store.reading() as session:
        session.execute(text("SELECT 1"))
    return Health(status="ok")
