"""The command line: `main` runs it, and turns every error into one line and an exit status.

Exit statuses: 0 done; 1 done, and the answer is no (a doctor's finding, a rejected expression, a
job that failed); 2 not done, with one line that says why; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

# Packages whose errors are for people, and the base of their errors. Most are only loaded by the
# commands that need them: what was never imported cannot have raised.
_ERRORS = {
    "search_server.errors": "SearchError",
    "losses.errors": "LossesError",
    "primitives.errors": "PrimitivesError",
    "workers.errors": "WorkersError",
    "workers.data.errors": "DataError",
}


def main() -> None:
    """The `lossforge` command."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns its exit status and raises nothing."""
    from search_server.cli.app import app

    try:
        app(args=list(arguments), prog_name="lossforge")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        return _explain(error)
    return 0


def _explain(error: Exception) -> int:
    """One line on stderr; with $LOSSFORGE_DEBUG also the traceback."""
    if os.environ.get("LOSSFORGE_DEBUG"):
        import traceback

        traceback.print_exc()
    known = tuple(
        getattr(sys.modules[module], name)
        for module, name in _ERRORS.items()
        if module in sys.modules
    )
    if isinstance(error, known):
        text = str(error)
    elif isinstance(error, OSError):
        text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    else:
        text = (
            f"{type(error).__name__}: {error} (this is a bug in Lossforge; "
            "LOSSFORGE_DEBUG=1 shows where)"
        )
    from search_server.cli.output import one_line

    print(f"lossforge: {one_line(text)}", file=sys.stderr)
    return 2
