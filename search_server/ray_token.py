"""The token that a Ray cluster may want, as this user has it."""

from __future__ import annotations

import os
from pathlib import Path

TOKEN_CURE = (
    "this Ray cluster wants a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to what "
    "`ray get-auth-token` prints on its head node"
)


def own_token() -> str | None:
    """This user's Ray token, looked for as Ray itself does; None: there is none."""
    given = os.environ.get("RAY_AUTH_TOKEN")
    if given:
        return given.strip()
    try:
        return token_file().read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def token_file() -> Path:
    """Where Ray looks for the token if the environment has none; the file need not be there."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
