"""The pages: rendered here, useful without JavaScript."""

from __future__ import annotations

from fastapi import APIRouter

from search_server.service.pages import jobs
from search_server.service.pages.rendering import error_page

__all__ = ["error_page", "router"]

router = APIRouter(include_in_schema=False)
for _part in (jobs,):
    router.include_router(_part.router)
