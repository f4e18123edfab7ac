"""Loads and builds an exported config in a clean process, before anybody gets it."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search_server.errors import ExportError
from search_server.export import probe

TIME_LIMIT = 300.0


def check(path: Path, config: Mapping[str, Any], *, standalone: bool) -> int:
    """Builds the config at ``path`` in a fresh interpreter with a neutral working folder.

    Args:
        path: the config file; a standalone's loss module lies beside it.
        config: what the file must read back as, plain data.
        standalone: hide this project from the process.

    Returns:
        The number of parameters of the detector that was built.

    Raises:
        ExportError: it does not load, does not build, or reads back as another config.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    if standalone:
        environment["PYTHONPATH"] = str(path.parent.resolve())
    arguments = [sys.executable, "-P", probe.__file__, str(path.resolve())]
    if standalone:
        arguments.append("--standalone")
    with tempfile.TemporaryDirectory(prefix="lossforge-check-") as neutral:
        try:
            done = subprocess.run(
                arguments, cwd=neutral, env=environment, capture_output=True, text=True,
                timeout=TIME_LIMIT, errors="replace", check=False, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ExportError(
                f"the exported config was not built within {TIME_LIMIT:.0f} s in a clean process"
            ) from None
    if done.returncode != 0:
        raise ExportError(
            f"the exported config does not build in a clean process: {_reason(done.stderr)}"
        )
    seen = json.loads(done.stdout.rstrip().rpartition("\n")[2])
    if seen["fingerprint"] != probe.fingerprint(config):
        raise ExportError("the exported config reads back as another config than was trained")
    return int(seen["parameters"])


def _reason(stderr: str) -> str:
    """The last line of a traceback, which names the exception."""
    lines = [line for line in stderr.splitlines() if line.strip() and not line.startswith(" ")]
    return lines[-1] if lines else "it ended without a word"
