"""One process of a trial that has several: forked from a `fork_server`, or by
``python -P -m workers.rank FOLDER RANK PARENT``.

The folder holds the order, and takes the answer. Having answered, the process stays until its
parent closes its standard input: a peer that is still in an exchange with it would break off.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from pathlib import Path
from typing import Any

from workers.beginning import call_it, die_with_parent
from workers.joining import meet, on_cpu
from workers.modules import add_user_modules
from workers.ranks import ORDER, answer_file
from workers.spec import TrialSpec


def main(place: str, number: str) -> None:
    """The life of the process; it does not return.

    Args:
        place: the folder.
        number: of this process, from 0.
    """
    call_it("lossforge-rank")
    folder, rank = Path(place), int(number)
    faulthandler.enable()
    add_user_modules()
    spec = TrialSpec.from_json(json.loads((folder / ORDER).read_text(encoding="utf-8")))
    answer = _answer(spec, folder, rank)
    path = answer_file(folder, rank)
    fresh = path.with_suffix(".part")
    fresh.write_text(json.dumps(answer), encoding="utf-8")
    fresh.replace(path)
    sys.stdin.read()
    sys.stdout.flush()
    sys.stderr.flush()
    # gloo's threads may hold Python objects still: taken down piece by piece, it would abort
    os._exit(0)


def _answer(spec: TrialSpec, folder: Path, rank: int) -> dict[str, Any]:
    """The result as JSON data, or that the checkpoint at hand could not be used."""
    from workers.pausing import UnusableCheckpoint
    from workers.training import train

    meet(folder / "meeting", rank, spec.processes, cpu=on_cpu(spec.device))
    try:
        return train(spec, folder / f"work-{rank}").to_json()
    except UnusableCheckpoint:
        return {"unusable": True}


if __name__ == "__main__":
    die_with_parent(int(sys.argv[3]))
    main(sys.argv[1], sys.argv[2])
