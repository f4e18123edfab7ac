"""The HTTP API, version 1."""

from __future__ import annotations

from fastapi import APIRouter

from search_server.service.api import (
    candidates,
    compare,
    health,
    jobs,
    leaderboard,
    losses,
    metrics,
    plots,
    submit,
)

router = APIRouter()
router.include_router(health.router)

PREFIX = "/api/v1"
for _part in (jobs, submit, leaderboard, candidates, plots, compare, losses, metrics):
    router.include_router(_part.router, prefix=PREFIX)
