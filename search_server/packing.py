"""A folder of the user's own modules, packed for a cluster: what goes along, and how much it is."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from search_server.errors import JobError

MIB = 2**20
RAY_LIMIT_MIB = 512  # of Ray's own store for packages
DEFAULT_LIMIT_MIB = 100
NEVER = (
    *(".git", ".venv", "venv", "__pycache__", "*.pyc", ".mypy_cache", ".ruff_cache"),
    *("data", "work_dirs", "*.pth", "*.pt", "*.ckpt", "*.db"),
)
LARGEST = 3  # files that an error names


@dataclass(frozen=True)
class Packed:
    """What of a folder goes along: files with their sizes in bytes, paths relative to it."""

    folder: Path
    files: tuple[tuple[Path, int], ...]

    @property
    def size(self) -> int:
        """Bytes of all files, before they are compressed."""
        return sum(size for _, size in self.files)

    def copy(self, target: Path) -> None:
        """Lay the files into a folder, which is made."""
        target.mkdir(parents=True, exist_ok=True)
        for file, _ in self.files:
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.folder / file, target / file)


def packed(
    folder: Path, exclude: Sequence[str] = (), limit_mib: float = DEFAULT_LIMIT_MIB
) -> Packed:
    """The files of a folder, without what no module needs; links to folders are not followed.

    Args:
        exclude: patterns as of shells, against names and against paths relative to the folder,
            beside `NEVER`.

    Raises:
        JobError: no folder, or it is too large; the message names the largest files.
    """
    if not folder.is_dir():
        raise JobError(f"--working-dir {folder}: there is no such folder")
    patterns = (*NEVER, *exclude)
    found: list[tuple[Path, int]] = []
    waiting = [folder]
    while waiting:
        for entry in sorted(waiting.pop().iterdir()):
            path = entry.relative_to(folder)
            if any(fnmatch(path.name, each) or fnmatch(str(path), each) for each in patterns):
                continue
            if entry.is_dir():
                if not entry.is_symlink():
                    waiting.append(entry)
            elif entry.is_file():
                found.append((path, entry.stat().st_size))
    made = Packed(folder, tuple(sorted(found)))
    if made.size > limit_mib * MIB:
        largest = sorted(found, key=lambda each: -each[1])[:LARGEST]
        named = ", ".join(f"{path} ({size / MIB:.1f} MiB)" for path, size in largest)
        raise JobError(
            f"--working-dir {folder} is {made.size / MIB:.1f} MiB, more than the limit of "
            f"{limit_mib:g} MiB; the largest files: {named}. Leave them out with --exclude, or "
            f"raise --max-upload (Ray takes {RAY_LIMIT_MIB} MiB at most)"
        )
    return made
