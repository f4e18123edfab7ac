"""The named loss definitions that are shipped, and how a definition is loaded."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from losses.definition import LossDefinition
from losses.errors import DefinitionError
from losses.paths import configs_dir


def read_definition(path: Path) -> LossDefinition:
    """The definition in a JSON file.

    Raises:
        DefinitionError: the file cannot be read, is no JSON, or no loss definition.
    """
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DefinitionError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DefinitionError(f"{path} is not JSON: {error}") from error
    try:
        return LossDefinition.from_json(data)
    except DefinitionError as error:
        raise DefinitionError(f"{path}: {error}") from error


EVIDENCE = ".evidence.json"


@cache
def load_catalog() -> Mapping[str, LossDefinition]:
    """Every shipped definition by name, in alphabetical order.

    Those that searches found lie in a folder of their own, each beside the evidence for it.

    Raises:
        DefinitionError: a shipped file is broken or named otherwise than its definition.
    """
    found: dict[str, LossDefinition] = {}
    folder = configs_dir() / "losses"
    paths = [*folder.glob("*.json"), *(folder / "discovered").glob("*.json")]
    for path in sorted(paths, key=lambda path: path.name):
        if path.name.endswith(EVIDENCE):
            continue
        definition = read_definition(path)
        if definition.name != path.stem:
            raise DefinitionError(f"{path} holds a definition named {definition.name!r}")
        if definition.name in found:
            raise DefinitionError(f"{path} holds {definition.name}, which is there already")
        found[definition.name] = definition
    return MappingProxyType(found)


CATALOG: Mapping[str, LossDefinition] = load_catalog()


def load_definition(name_or_path: str) -> LossDefinition:
    """A definition of the catalogue, or one from a JSON file.

    Args:
        name_or_path: a name of `CATALOG`, or the path of a JSON file.

    Raises:
        DefinitionError: neither such a name nor such a file, or a broken file.
    """
    if name_or_path in CATALOG:
        return CATALOG[name_or_path]
    path = Path(name_or_path)
    if path.suffix == ".json" or path.is_file():
        return read_definition(path)
    raise DefinitionError(
        f"no loss is named {name_or_path!r} and no such file exists; named losses:"
        f" {', '.join(CATALOG)}"
    )
