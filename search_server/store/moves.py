"""The one table of legal moves between states; everything not in it is an `IllegalMove`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from search_server.errors import IllegalMove
from search_server.store.records import STAGES

Moves = Mapping[str, tuple[str, ...]]

# A job whose process was killed is still `running` in the store: taking it over is a move too.
JOB_MOVES: Final[Moves] = {
    "created": ("running", "failed", "cancelled"),
    "running": ("running", "cancelling", "interrupted", "done", "failed", "cancelled"),
    "cancelling": ("cancelled",),
    "interrupted": ("running", "failed", "cancelled"),
    "failed": ("running", "cancelled"),
    "done": (),
    "cancelled": (),
}

# Staying where one is, is legal: a resumed job may say again what it said before it was killed.
CANDIDATE_MOVES: Final[Moves] = {
    "open": ("open", "dropped", "done", "failed"),
    "dropped": ("dropped",),
    "done": ("done",),
    "failed": ("failed",),
}

# `running` again: the trial of a process that died is started anew. A paused one is continued. One
# that runs when its job is cancelled ends with it, for good as the job does.
TRIAL_MOVES: Final[Moves] = {
    "running": (
        *("running", "paused", "done", "diverged", "timeout", "out_of_memory", "failed"),
        "cancelled",
    ),
    "paused": ("running",),
    "done": (),
    "diverged": (),
    "timeout": (),
    "out_of_memory": (),
    "failed": (),
    "cancelled": (),
}

STAGE_MOVES: Final[Moves] = {stage: STAGES[i:] for i, stage in enumerate(STAGES)}


def check_move(moves: Moves, what: str, old: str, new: str) -> None:
    """Return if `old` may become `new`.

    Raises:
        IllegalMove: otherwise, with the moves there are.
    """
    allowed = moves.get(old, ())
    if new not in allowed:
        raise IllegalMove(what, old, new, tuple(state for state in allowed if state != old))
