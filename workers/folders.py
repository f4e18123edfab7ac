"""Work folders: one per child process, under the home folder, gone when the process is.

Folders of checkpoints lie beside them, and are garbage when nobody has written there for long. So
are the files of caches that nobody has used for long.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from workers.errors import WorkersError
from workers.home import lossforge_home

_LOCK = ".lock"
_DAY = 24 * 3600.0  # seconds
_KEPT = 7 * _DAY  # that a folder of checkpoints is kept after its last change
_CACHES = ("warm_starts", "calibration", "decoded", "fetched")  # entries are touched when used
_CACHED = 30 * _DAY  # that a file or folder in a cache is kept after its last use


def work_root() -> Path:
    """The folder under which all work folders of this machine's user lie."""
    return lossforge_home() / "work"


def checkpoint_root() -> Path:
    """The folder in which every search has its own for checkpoints (`TrialSpec.checkpoint`)."""
    return lossforge_home() / "checkpoints"


class WorkFolder:
    """A folder that is locked as long as its owner lives.

    The lock is the kernel's (``flock``) and so ends with the owner, however it ends: a folder
    whose lock can be had is stale, and `collect_garbage` may remove it.

    Raises:
        WorkersError: the folder cannot be made.
    """

    def __init__(self) -> None:
        root = work_root()
        try:
            root.mkdir(parents=True, exist_ok=True)
            collect_garbage()
            # Under the root's lock, or garbage collection could see the folder before its lock.
            with _locked(root / _LOCK):
                self.path = Path(tempfile.mkdtemp(prefix="worker-", dir=root))
                self._lock: int | None = _acquire(self.path / _LOCK)
        except OSError as error:
            raise WorkersError(
                f"no work folder under {root}: {error.strerror}; LOSSFORGE_HOME can name another"
                " place"
            ) from error

    def remove(self) -> None:
        """Deletes the folder with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


@dataclass(frozen=True)
class Garbage:
    """What `collect_garbage` found.

    Attributes:
        folders: the stale work folders and folders of checkpoints, and the stale files and folders
            in caches.
        bytes: their size on disk.
    """

    folders: tuple[Path, ...]
    bytes: int


def collect_garbage(dry_run: bool = False) -> Garbage:
    """Removes the work folders whose owner is gone (killed, or the machine went down).

    Folders of checkpoints go a week after their last change: whoever asks for a checkpoint later
    trains from the start, to the same result. What is in a cache (weights of warm starts, captures
    of the calibration, decoded images, data of other machines) goes after thirty days without use:
    it is made again.

    Args:
        dry_run: only looks, removes nothing.
    """
    root = work_root()
    with _locked(root / _LOCK) if root.is_dir() else nullcontext():
        stale = [folder for folder in _inside(root) if _is_stale(folder)]
        stale += [folder for folder in _inside(checkpoint_root()) if _is_old(folder)]
        stale += _unused()
        size = sum(map(_size, stale))
        if not dry_run:
            for found in stale:
                if found.is_dir():
                    shutil.rmtree(found, ignore_errors=True)
                else:
                    found.unlink(missing_ok=True)
    return Garbage(tuple(stale), size)


def _inside(root: Path) -> list[Path]:
    """The folders in a folder, which need not be there."""
    found = sorted(root.iterdir()) if root.is_dir() else []
    return [path for path in found if path.is_dir() and not path.is_symlink()]


def _unused() -> list[Path]:
    """What is in caches and has not been used for long; what a killed process left there too."""
    before = time.time() - _CACHED
    found = []
    for name in _CACHES:
        # of a folder that is not there, or in which others are removing the same: nothing
        with suppress(OSError), os.scandir(lossforge_home() / name) as entries:
            found += [
                Path(entry.path)
                for entry in entries
                if entry.stat(follow_symlinks=False).st_mtime < before
            ]
    return sorted(found)


def _is_old(folder: Path) -> bool:
    try:
        last = max(path.lstat().st_mtime for path in (folder, *_files(folder)))
    except FileNotFoundError:  # somebody is at work there
        return False
    return last < time.time() - _KEPT


def _is_stale(folder: Path) -> bool:
    lock = _acquire(folder / _LOCK)
    if lock is None:
        return False
    os.close(lock)
    return True


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())


def _size(found: Path) -> int:
    """Bytes of a file, or of all files in a folder; what goes meanwhile counts nothing."""
    size = 0
    for path in _files(found) if found.is_dir() else (found,):
        with suppress(FileNotFoundError):
            size += path.lstat().st_size
    return size


def _acquire(path: Path) -> int | None:
    """The descriptor that holds the lock, or None when another has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds the lock of the folder of all work folders, waiting for it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
