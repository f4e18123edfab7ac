"""A user's own config file, read into the self-contained text that a trial carries."""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import mmengine.config.utils
from mmengine.config import Config
from mmengine.fileio import load

from losses import LossesError
from workers.config_text import UnwritableError, config_text
from workers.data import DataError
from workers.errors import DetectorError, WorkersError


def load_detector(path: str | Path) -> str:
    """The self-contained text of an mmdet config file.

    Text style (``_base_``, also ``mmdet::...``) and lazy style (``with read_base():``) are both
    read; what comes out is text style, `_base_` resolved, classes as dotted names. Importing the
    same text twice gives the same values, so the text is part of a trial's identity. Modules named
    in ``custom_imports`` are not imported here; where trials run they must be importable:
    installed, or in a folder on PYTHONPATH.

    Raises:
        DetectorError: no such file, not a config, or no detector in it; names the file.
    """
    file = Path(path)
    if not file.is_file():
        raise DetectorError(str(path), "no such file; give the path of an mmdet config")
    config = _read(file, str(path))
    if not isinstance(config.get("model"), dict) or "type" not in config["model"]:
        raise DetectorError(str(path), "is not a detector: it has no `model = dict(type=...)`")
    try:
        return config_text(config)
    except UnwritableError as error:
        raise DetectorError(str(path), str(error)) from error


def parse_detector(text: str) -> Config:
    """The config that `load_detector` wrote, its ``custom_imports`` imported.

    Raises:
        DetectorError: the text is no config, or a module that it names cannot be imported.
    """
    with tempfile.TemporaryDirectory(prefix="lossforge-") as folder:
        file = Path(folder) / "detector.py"
        file.write_text(text, encoding="utf-8")
        try:
            config = Config.fromfile(
                file, use_predefined_variables=False, use_environment_variables=False
            )
        except Exception as error:
            cause = error.__cause__ if isinstance(error, ImportError) else None
            raise DetectorError("the detector's config", one_line(cause or error)) from error
    if "model" not in config:
        raise DetectorError("the detector's config", "has no `model`")
    return Config(config.to_dict())


def one_line(error: BaseException, limit: int = 300) -> str:
    """An error in one line, for people; its kind as well unless the message is our own."""
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    lines = [line.strip() for line in str(message).splitlines() if line.strip()]
    kind = type(error).__name__
    own = isinstance(error, WorkersError | LossesError | DataError)
    text = kind if not lines else lines[0] if own else f"{kind}: {lines[0]}"
    return text if len(text) <= limit else text[: limit - 1] + "…"


@cache
def _metafile(path: str) -> Any:
    """What an installed package says of some of its configs."""
    return load(path)


@contextlib.contextmanager
def _metafiles_kept() -> Iterator[None]:
    """Inside, mmengine reads each of the hundred files in which it looks up an ``mmdet::`` config
    once a process, not once a look."""
    before = mmengine.config.utils.load
    mmengine.config.utils.load = _metafile
    try:
        yield
    finally:
        mmengine.config.utils.load = before


def _read(file: Path, name: str) -> dict[str, Any]:
    # mmengine prints about deprecated fields; reading a config has nothing to say. Its look for
    # ``mmdet::`` warns of pkg_resources, which a user cannot mend.
    quiet = contextlib.redirect_stdout(io.StringIO())
    with quiet, warnings.catch_warnings(), _metafiles_kept():
        warnings.simplefilter("ignore")
        try:
            config = Config.fromfile(file, import_custom_modules=False)
            return config.to_dict()
        except Exception as error:
            raise DetectorError(
                name, f"is not a config mmengine can read: {one_line(error)}"
            ) from error
