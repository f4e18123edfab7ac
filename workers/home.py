"""Where Lossforge keeps what outlives a command: data sets, the default store, work folders."""

from __future__ import annotations

import os
from pathlib import Path


def lossforge_home() -> Path:
    """The home folder of Lossforge: ``$LOSSFORGE_HOME``, else ``~/.lossforge``; always absolute.

    The folder need not exist: whoever writes into it creates what it needs. An empty variable
    counts as unset, so that ``LOSSFORGE_HOME= lossforge ...`` does not write into the current
    folder.
    """
    chosen = os.environ.get("LOSSFORGE_HOME")
    home = Path(chosen).expanduser() if chosen else Path.home() / ".lossforge"
    return home.absolute()
