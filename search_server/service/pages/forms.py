"""Forms of the pages: read with bounds, and refused where they are not ours."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from search_server.service.access import CSRF_FIELD, check_origin, check_word

MOST_FIELDS = 60

Fields = dict[str, str]


async def read(request: Request) -> Fields:
    """The texts of a form, the last of each name."""
    given = await request.form(max_files=0, max_fields=MOST_FIELDS)
    return {name: value for name, value in given.items() if isinstance(value, str)}


async def own(request: Request) -> Fields:
    """The texts of a form of one of our pages, with its word.

    Raises:
        Problem: 403, it is none.
    """
    fields = await read(request)
    check_word(request, fields.get(CSRF_FIELD))
    return fields


async def first(request: Request) -> Fields:
    """The texts of a form of somebody who has no word yet, since nobody knows them.

    Raises:
        Problem: 403, another site has sent it.
    """
    check_origin(request)
    return await read(request)


OwnForm = Annotated[Fields, Depends(own)]  # after the caller, who may not be allowed any form
FirstForm = Annotated[Fields, Depends(first)]
