"""The pages: rendered here, useful without JavaScript."""

from __future__ import annotations

from fastapi import APIRouter

from search_server.service.pages import (
    candidate,
    compare,
    drawn,
    job,
    jobs,
    leaderboard,
    packaged,
    session,
    submit,
    verify,
)
from search_server.service.pages.rendering import error_page
from search_server.service.pages.session import asked_to_log_in

__all__ = ["asked_to_log_in", "error_page", "router"]

router = APIRouter(include_in_schema=False)
for _part in (
    *(jobs, job, candidate, leaderboard, compare, verify),
    *(drawn, packaged, submit, session),
):
    router.include_router(_part.router)
