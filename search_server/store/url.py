"""The store's URL: where it comes from, and how to name it without its password."""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from search_server.errors import StoreError

BACKENDS = ("sqlite", "postgresql")


def default_url() -> str:
    """`$LOSSFORGE_STORE`, else an SQLite file in Lossforge's home folder."""
    given = os.environ.get("LOSSFORGE_STORE", "")
    if given:
        return given
    from workers import lossforge_home

    return f"sqlite:///{lossforge_home() / 'lossforge.db'}"


def parse_url(text: str) -> URL:
    """The URL of a store; a plain path means an SQLite file there.

    Raises:
        StoreError: not a URL of a database that Lossforge knows. No part of the text is repeated,
            since a password may be anywhere in a URL that cannot be parsed.
    """
    text = text.strip()
    if not text:
        raise StoreError("the store's URL is empty; give a path or a URL such as sqlite:///jobs.db")
    if "://" not in text:
        return URL.create("sqlite", database=_absolute_path(text))
    if text.partition("://")[2].partition("/")[0].count("@") > 1:
        raise StoreError("the store's URL has two @: write an @ in the password as %40")
    try:
        url = make_url(text)
        backend = url.get_backend_name()
    except (ArgumentError, ValueError):
        raise StoreError(
            "the store's URL cannot be read; it looks like sqlite:////folder/jobs.db or "
            "postgresql://user:password@host:5432/database, with @ : / in a password as %40 %3A %2F"
        ) from None
    if backend not in BACKENDS:
        raise StoreError(
            f"{shown(url)}: stores are kept in SQLite (sqlite:///jobs.db) or PostgreSQL "
            "(postgresql://user@host/database), not elsewhere"
        )
    if backend == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if not url.database or url.database == ":memory:":
        raise StoreError("a store in memory would be lost with its process: give a file")
    # A URL can end up in another working directory (a worker, a resumed job): keep it absolute.
    return url.set(drivername="sqlite", database=_absolute_path(url.database))


def _absolute_path(text: str) -> str:
    try:
        return str(Path(text).expanduser().absolute())
    except RuntimeError:
        raise StoreError(
            f"the store's path {text!a} starts with ~ and a name that is no user's; a file of that "
            "name is written ./~name"
        ) from None


def shown(url: URL) -> str:
    """The URL for people: without password, and without query (which may hold one too)."""
    return url.set(query={}).render_as_string(hide_password=True)


def absolute(text: str) -> str:
    """The URL in full, with its password, the same database from any folder; never to be shown.

    Raises:
        StoreError: see `parse_url`.
    """
    return parse_url(text).render_as_string(hide_password=False)
