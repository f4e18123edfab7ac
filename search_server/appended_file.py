"""A file to which one process at a time appends, so that what was written outlives a kill."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from search_server.errors import JobError


class AppendedFile:
    """An open file with a lock, made with its folder where it is missing.

    Args:
        writer: who else may be writing it, for the error: "another comparison".

    Raises:
        JobError: another process has it open.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path, writer: str) -> None:
        self.path = path
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise JobError(f"{path}: {writer} is writing this file") from None
        except BaseException:
            self.close()
            raise

    def append(self, data: bytes) -> None:
        """Writes at the end; on disk when it returns."""
        while data:
            data = data[os.write(self._file, data) :]
        os.fsync(self._file)

    def cut(self, size: int) -> None:
        """Drops what comes after the first `size` bytes."""
        os.ftruncate(self._file, size)

    def close(self) -> None:
        """Ends the lock."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
