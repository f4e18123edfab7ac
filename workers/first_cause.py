"""Why one process of several was the first to end, told from how all of them did.

When one breaks off, the others soon do: they wait in an exchange for one that will not come, tell
of a connection that was lost, or are aborted for it by the library that makes the exchange.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path

CONSEQUENCES = (-signal.SIGABRT, -signal.SIGTERM)
"""Exit statuses of processes that were ended for the sake of another one's end."""
LAST_LINE = 300  # characters


def first_cause(told: Mapping[int, Path], dead: Mapping[int, int]) -> int:
    """The process that ended the others, by its rank.

    Args:
        told: the file in which a process has said what went wrong, by rank.
        dead: how those ended that said nothing, by rank: exit status, negative for a signal. One of
            the two has to have an entry.
    """
    killed = [rank for rank, code in dead.items() if code not in CONSEQUENCES]
    if told and not killed:  # one that was killed could not say so
        return min(told, key=lambda rank: (told[rank].stat().st_mtime_ns, rank))
    return min(killed or dead)


def named(rank: int, of: int) -> str:
    """A process for people, who count from 1."""
    return f"process {rank + 1} of {of}"


def death(rank: int, of: int, code: int, output: str) -> str:
    """How a process ended without a word, for people, with the last line that it printed."""
    lines = output.strip().splitlines()
    last = f": {lines[-1].strip()[:LAST_LINE]}" if lines else ""
    return f"{named(rank, of)} {ended(code)}{last}"


def ended(code: int) -> str:
    """What an exit status says: `was ended by SIGKILL`, `ended with status 3`."""
    if code >= 0:
        return f"ended with status {code}"
    known = -code in set(signal.Signals)
    return f"was ended by {signal.Signals(-code).name if known else f'signal {-code}'}"
