"""The evidence's trials as files of the repository: another machine goes on where one has stopped.

The store and the trials of the noise floors lie compressed in docs/evidence. They are unpacked
where the work folder has none, and packed again as the evidence grows.
"""

from __future__ import annotations

import lzma
import sqlite3
import tempfile
from pathlib import Path

from results_page import ROOT, STORE, WORK

from search_server.store.schema import upgrade
from search_server.store.url import parse_url

KEPT = ROOT / "docs" / "evidence"
DATABASE = "store.db"


def restore() -> None:
    """Unpack what the work folder, which is there, lacks; an older schema is brought up to date.

    Raises:
        SystemExit: the work folder has a store with fewer trials than the one that is kept.
    """
    for packed in sorted(KEPT.glob("*.xz")):
        target = WORK / packed.stem
        if target.exists():
            if target.name == DATABASE and _trials(target) < _kept_trials():
                raise SystemExit(
                    f"{target} has fewer trials than {packed}: move it away to go on from the "
                    "latter, or give --afresh"
                )
            continue
        _write(target, lzma.decompress(packed.read_bytes()))
        if target.name == DATABASE:
            upgrade(parse_url(STORE))


def keep() -> None:
    """Pack the work folder's store, without free pages or a journal, and its noise trials.

    Evidence that has more trials is left alone: it is another one, or of another machine.
    """
    KEPT.mkdir(parents=True, exist_ok=True)
    if _trials(WORK / DATABASE) < _kept_trials():
        print(f"{KEPT} has more trials than {WORK}, and is left as it is")
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / DATABASE
        with sqlite3.connect(WORK / DATABASE) as connection:
            connection.execute("VACUUM INTO ?", (str(copy),))
        connection.close()
        for path in (copy, *sorted(WORK.glob("*_noise.jsonl"))):
            content = path.read_bytes()
            if path != copy:  # where data lay on this machine is nobody's business
                content = content.replace(str(Path.home()).encode(), b"~")
            _write(KEPT / f"{path.name}.xz", lzma.compress(content, preset=9))


def _trials(database: Path) -> int:
    """How many trials of a store have ended."""
    connection = sqlite3.connect(database)
    try:
        query = "SELECT COUNT(*) FROM trials WHERE state NOT IN ('running', 'paused')"
        return int(connection.execute(query).fetchone()[0])
    finally:
        connection.close()


def _kept_trials() -> int:
    """The same of the store that is kept; 0 where there is none."""
    packed = KEPT / f"{DATABASE}.xz"
    if not packed.exists():
        return 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / DATABASE
        copy.write_bytes(lzma.decompress(packed.read_bytes()))
        return _trials(copy)


def _write(path: Path, content: bytes) -> None:
    """All of it or nothing: a process may be killed here too."""
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    part.replace(path)
