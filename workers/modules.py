"""The user's own modules, which a job on a cluster brings along, behind all others."""

from __future__ import annotations

import os
import sys
from pathlib import Path

MODULES = "LOSSFORGE_MODULES"


def add_user_modules(folder: Path | None = None) -> None:
    """Append a folder, or the one that ``$LOSSFORGE_MODULES`` names, to the import path.

    At the end, so that no module of the user's can take the place of one of ours. The variable
    becomes absolute: child processes have another current folder.
    """
    given = str(folder or os.environ.get(MODULES, ""))
    if not given:
        return
    place = str(Path(given).absolute())
    os.environ[MODULES] = place
    if place not in sys.path:
        sys.path.append(place)
