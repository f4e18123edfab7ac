"""The one error of the data package: an unusable file, with its path and what is wrong."""

from __future__ import annotations

from pathlib import Path


class DataError(ValueError):
    """A data set cannot be used.

    Attributes:
        path: The file or folder that is at fault.
        problem: What is wrong with it, and the cure where there is one.
    """

    def __init__(self, path: Path | str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = Path(path)
        self.problem = problem
