"""Which files a spec may name, and where relative paths are meant from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationInfo

CONTEXT = "places"


@dataclass(frozen=True)
class Places:
    """What a spec's reader allows it to name.

    Attributes:
        folder: relative paths are meant from it; None: from the current one.
        only: the paths that it may name, as they are written; None: any. A spec that somebody has
            sent names none but what its reader itself has put there.
    """

    folder: Path | None = None
    only: frozenset[str] | None = None

    def check(self, path: str) -> None:
        """Refuse a path before anything touches what it leads to.

        Raises:
            ValueError: the spec may not name it.
        """
        if self.only is not None and path not in self.only:
            raise ValueError("files cannot be named here; give a name, or write it out")

    def path(self, given: str) -> Path:
        """The file that is meant. Raises: see `check`."""
        self.check(given)
        return Path(given) if self.folder is None else self.folder / given


ANYWHERE = Places()


def places_of(info: ValidationInfo) -> Places:
    """What the reader of a spec has said; nothing where it comes from a store."""
    found = (info.context or {}).get(CONTEXT)
    return found if isinstance(found, Places) else ANYWHERE
