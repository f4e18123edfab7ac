"""How Alembic reaches the database: through the connection that `schema.upgrade` hands over.

To write a new revision, point `$LOSSFORGE_STORE` at a scratch store of the newest revision:
`alembic -c search_server/store/migrations/alembic.ini revision --autogenerate -m "what changes"`.
"""

from __future__ import annotations

from typing import Literal

from alembic import context
from sqlalchemy import Connection

from search_server.store.engine import connect
from search_server.store.models import Base, UTCDateTime
from search_server.store.url import default_url, parse_url


def render_item(kind: str, item: object, _: object) -> str | Literal[False]:
    """Writes our own column types as what they are in SQL: old revisions outlive their classes."""
    return "sa.DateTime()" if kind == "type" and isinstance(item, UTCDateTime) else False


def migrate(connection: Connection) -> None:
    """Run the migrations asked for inside the transaction that the connection is in."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
        render_item=render_item,
    )
    context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    with connect(parse_url(default_url()), foreign_keys=False).begin() as own:
        migrate(own)
