"""A script for a clean process: loads an exported config, builds its detector, says what it saw.

Standard library only at import, since it also runs where this project cannot be imported.
"""

import hashlib
import json
import sys
from collections.abc import Mapping
from typing import Any

PROJECT = ("primitives", "losses", "workers", "search_server")


class _Hidden:
    """A finder that makes the project's packages impossible to import."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in PROJECT:
            raise ModuleNotFoundError(f"{name} is hidden: a standalone export must not need it")


def fingerprint(config: Any) -> str:
    """SHA-256 of plain data: list and tuple, 1 and 1.0 differ; the order of keys does not count."""
    return hashlib.sha256(_text(config).encode()).hexdigest()


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        items = sorted((_text(key), _text(item)) for key, item in value.items())
        return "{" + ",".join(f"{key}:{item}" for key, item in items) + "}"
    if isinstance(value, (list, tuple)):
        left, right = "[]" if isinstance(value, list) else "()"
        return left + ",".join(_text(item) for item in value) + right
    return ascii(value)


def main(path: str, standalone: bool) -> None:
    """Prints one JSON line: type, number of parameters and the config's fingerprint."""
    if standalone:
        sys.meta_path.insert(0, _Hidden())
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    config = Config.fromfile(path)
    read = fingerprint(config.to_dict())  # before building, which takes parts out
    init_default_scope(config.get("default_scope", "mmdet"))
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    model = MODELS.build(config.model)
    seen = {
        "type": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "fingerprint": read,
    }
    print("\n" + json.dumps(seen))


if __name__ == "__main__":
    main(sys.argv[1], standalone="--standalone" in sys.argv[2:])
