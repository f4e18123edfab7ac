"""The file of a comparison: one JSON line per ended trial, so that no trial is run twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search_server.appended_file import AppendedFile
from search_server.errors import JobError
from workers import TrialResult, TrialSpec

_START = '{"key": "'  # of every line that this module writes


class ComparisonFile(AppendedFile):
    """Ended trials by `TrialSpec.key`, in a file that outlives the process.

    A trial's line is written in one go and reaches the disk before `add` returns. A last line that
    was torn by a kill is dropped when the file is opened again; lines of other trials, other
    steps or another detector say, are left alone. While it is open, no other process can open it.

    Raises:
        JobError: another process writes it, or the file is no file of a comparison.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "another comparison")
        try:
            self._results = self._read()
        except BaseException:
            self.close()
            raise

    @property
    def results(self) -> Mapping[str, TrialResult]:
        """The result of each trial by its key; of one that was run twice the later."""
        return self._results

    def add(self, spec: TrialSpec, result: TrialResult, about: Mapping[str, Any]) -> None:
        """Writes down how a trial ended.

        Args:
            about: what people and programs want to know beside it: the loss's name and so on.
        """
        record = {"key": spec.key, **about, "result": result.to_json()}
        self.append((json.dumps(record, allow_nan=False) + "\n").encode())
        self._results[spec.key] = result

    def _read(self) -> dict[str, TrialResult]:
        content = self.path.read_bytes()
        body, _, torn = content.rpartition(b"\n")
        lines = body.split(b"\n") if body else []
        results: dict[str, TrialResult] = {}
        for number, line in enumerate(lines, 1):
            key, result = self._parsed(line, number)
            results[key] = result
        if torn:
            number = len(lines) + 1
            try:
                key, result = self._parsed(torn, number)
            except JobError:
                start = _START.encode()
                if not (torn.startswith(start) or start.startswith(torn)):
                    raise
                self.cut(len(content) - len(torn))
            else:  # whole but for its end, as an editor leaves it
                results[key] = result
                self.append(b"\n")
        return results

    def _parsed(self, line: bytes, number: int) -> tuple[str, TrialResult]:
        try:
            record = json.loads(line)
            return str(record["key"]), TrialResult.from_json(record["result"])
        except (ValueError, TypeError, KeyError, AttributeError):
            raise self._foreign(number) from None

    def _foreign(self, line: int) -> JobError:
        return JobError(
            f"{self.path}: line {line} is no trial of a comparison; give a new file, or one that "
            "`compare --output` wrote"
        )
