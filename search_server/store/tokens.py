"""Tokens: keys to the service, and the sessions of browsers that have shown one."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

from sqlalchemy import delete, select

from search_server.errors import ServiceError
from search_server.store import convert, models
from search_server.store.records import ROLES, Role, TokenRecord
from search_server.store.sessions import Sessions, now

PREFIX = "lossforge_"
SESSION_TIME = timedelta(days=7)


class Tokens(Sessions):
    """The store's methods about tokens. Secrets are 256 random bits, so that a plain SHA-256 of
    them, which is all that is kept, cannot be searched for what it came from."""

    def create_token(self, name: str, role: str) -> str:
        """A new token; returns its text, which is nowhere else and never shown again.

        Raises:
            ServiceError: the name is taken or empty, or there is no such role.
        """
        if role not in ROLES:
            raise ServiceError(f"{role!r} is no role; it must be one of {', '.join(ROLES)}")
        if not name.strip() or not name.isprintable() or len(name) > 100:
            raise ServiceError(f"{name[:100]!r} is no name; it must be printable text on one line")
        text = PREFIX + secrets.token_urlsafe(32)
        with self.changing() as session:
            taken = session.scalar(select(models.Token).where(models.Token.name == name))
            if taken is not None:
                raise ServiceError(
                    f"there is a token {name!r} already"
                    + (", revoked; names are not used twice" if taken.revoked_at else "")
                )
            session.add(
                models.Token(
                    name=convert.plain(name),
                    role=role,
                    secret=_hashed(text),
                    created_at=now(),
                    revoked_at=None,
                )
            )
        return text

    def tokens(self) -> list[TokenRecord]:
        """All of them, the oldest first."""
        with self.reading() as session:
            rows = session.scalars(select(models.Token).order_by(models.Token.id))
            return [_record(row) for row in rows]

    def revoke_token(self, name: str) -> TokenRecord:
        """End a token, and the sessions that were opened with it.

        Raises:
            ServiceError: there is none of this name.
        """
        with self.changing() as session:
            row = session.scalar(select(models.Token).where(models.Token.name == name))
            if row is None:
                raise ServiceError(f"there is no token {name!r}; see: lossforge token list")
            row.revoked_at = row.revoked_at or now()
            session.execute(delete(models.WebSession).where(models.WebSession.token_id == row.id))
            return _record(row)

    def token_of(self, text: str) -> TokenRecord | None:
        """The token of this text; None: there is none, or it was revoked."""
        query = select(models.Token).where(
            models.Token.secret == _hashed(text), models.Token.revoked_at.is_(None)
        )
        with self.reading() as session:
            row = session.scalar(query)
            return None if row is None else _record(row)

    def open_session(self, token_id: int, secret: str) -> None:
        """Remember a browser by what its cookie says."""
        with self.changing() as session:
            session.execute(delete(models.WebSession).where(models.WebSession.expires_at < now()))
            session.merge(
                models.WebSession(
                    secret=_hashed(secret), token_id=token_id, expires_at=now() + SESSION_TIME
                )
            )

    def close_session(self, secret: str) -> None:
        """Forget a browser."""
        with self.changing() as session:
            session.execute(
                delete(models.WebSession).where(models.WebSession.secret == _hashed(secret))
            )

    def session_of(self, secret: str) -> TokenRecord | None:
        """The token that a browser has shown; None: none that is valid, or too long ago."""
        query = (
            select(models.Token)
            .join(models.WebSession, models.WebSession.token_id == models.Token.id)
            .where(
                models.WebSession.secret == _hashed(secret),
                models.WebSession.expires_at >= now(),
                models.Token.revoked_at.is_(None),
            )
        )
        with self.reading() as session:
            row = session.scalar(query)
            return None if row is None else _record(row)


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _record(row: models.Token) -> TokenRecord:
    role: Role = row.role  # type: ignore[assignment]
    return TokenRecord(row.id, row.name, role, row.created_at, row.revoked_at)
