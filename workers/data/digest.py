"""The identity of a file's content."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path


def content_digest(path: str | Path) -> str:
    """SHA-256 (hex) of a file; empty where there is none, which who needs it says by itself.

    Read once a process, and again when its size or its time of change is another.
    """
    path = Path(path)
    try:
        about = path.stat()
        return _digest(path, about.st_mtime_ns, about.st_size)
    except OSError:
        return ""


@lru_cache(maxsize=32)
def _digest(path: Path, modified: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
